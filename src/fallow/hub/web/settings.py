"""Bounds of the web side, in one frozen record."""

import msgspec

from fallow.hub.web.package_mirror import PackageSettings


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the REST API and the pages allow."""

    packages: PackageSettings | None = None
    """The package index that is mirrored for nodes; None: there is none."""
    body_bytes: int = 64 << 20
    """Largest JSON request. A job of more items than fit is for the Python client, which streams."""
    blob_bytes: int = 60 << 20
    """Largest blob that may be uploaded: the hub holds it in memory meanwhile. The Python client's links have no bound."""
    signed_in_s: float = 12 * 3600.0
    """A browser stays signed in this long: a working day."""
    sessions: int = 1000
    """Browsers signed in at a time; the oldest goes first."""
    keepalive_s: float = 15.0
    """An idle event stream says something this often, so that proxies (60 s is common) keep it open."""
    live_interval_s: float = 0.5
    """The overview page is redrawn at most this often: faster is flicker, and every redraw reads the jobs."""
    live_busy_s: float = 1.0
    """... and at least this often while a job runs ..."""
    live_idle_s: float = 10.0
    """... or this often while none does, for the ages that it shows."""
