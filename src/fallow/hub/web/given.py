"""What the app hands to its handlers, by name: `hub`, `token`, `web`, `packages`, `streams`."""

from litestar.di import NamedDependency

from fallow.hub.core.hub import Hub
from fallow.hub.web.package_mirror import PackageMirror
from fallow.hub.web.settings import WebSettings
from fallow.hub.web.streams import Streams
from fallow.model.token import Token

GivenHub = NamedDependency[Hub]
GivenToken = NamedDependency[Token]
"""The caller's; only behind the guard `requires_token`."""
GivenSettings = NamedDependency[WebSettings]
GivenPackages = NamedDependency[PackageMirror | None]
GivenStreams = NamedDependency[Streams]
