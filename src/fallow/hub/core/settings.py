"""Everything that a hub can be told, in one frozen record."""

from pathlib import Path

import msgspec


class HubSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one hub; parsed at the edge (command line, embedded grid), passed down."""

    folder: Path
    """Where blobs lie, and the database unless `database` names another."""
    database: str | None = None
    """SQLAlchemy URL; None: SQLite in `folder`; "memory": nothing outlives the process."""
    object_store: str | None = None
    """URL of an S3-compatible store for blobs, with files in `folder` as its cache; None: files in `folder` alone."""
    memory_folder: Path | None = None
    """Folder in memory, for blobs as long as it has room; for a hub that keeps nothing beyond its process."""
    trusts_files: bool = False
    """Whether files that peers on this computer hand over are named as they say, and may be taken from wherever they lie: the peers
    are this very process."""
    admin_secret: str | None = None
    """Admin token to use at first start instead of a new one."""
    join_secret: str | None = None
    session_grace_s: float = 60.0
    """How long the jobs of a client that has gone are kept for its return."""
    reserve_bytes: int = 512_000_000
    """Free space below which submissions are refused, so that results of accepted work still fit."""
    retention_s: float = 30 * 86_400.0
    """How long a named job is kept after its end."""
    waiting_notice_s: float = 3.0
    """After this long without a node that can run it, a waiting client is told why its job waits."""
    page_cache_bytes: int = 64 << 20
    """Input pages kept in memory for the next leases."""
