"""Makes a hub's parts from its settings: which state, which blob store."""

from fallow.hub.core.hub import Hub
from fallow.hub.core.settings import HubSettings
from fallow.model.errors import StateError
from fallow.state.blobs import BlobStore, LocalBlobs
from fallow.state.memory import MemoryState
from fallow.state.quick_blobs import QuickBlobs
from fallow.state.state import State

MEMORY = "memory"


def open_hub(settings: HubSettings) -> Hub:
    """Return a hub that is not started yet. Raises StateError if a database is wanted and its library is missing."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    is_durable = settings.database != MEMORY
    return Hub(settings, _state(settings), _blobs(settings, durable=is_durable))


def _state(settings: HubSettings) -> State:
    if settings.database == MEMORY:
        return MemoryState(settings.folder)  # its files have no name
    try:
        from fallow.state.sql import SqlState
    except ModuleNotFoundError as error:
        raise StateError(
            f"keeping jobs in a folder or a database needs the package {error.name}: pip install 'fallow[hub]'"
        ) from error
    return SqlState(settings.database or settings.folder)


def _blobs(settings: HubSettings, *, durable: bool) -> BlobStore:
    folder = settings.folder / "blobs"
    if settings.object_store is None:
        local = LocalBlobs(folder, durable=durable, trusting=settings.trusts_files)
        return local if settings.memory_folder is None else QuickBlobs(settings.memory_folder, local)
    from fallow.state.object_store import open_object_store

    return open_object_store(settings.object_store, folder)
