"""Parts that `pip install fallow` leaves out, and what to say where they are missing."""

import contextlib
from collections.abc import Iterator

from fallow.model.errors import BadRequest


@contextlib.contextmanager
def hub_extra() -> Iterator[None]:
    """Turn a failed import of the hub's libraries into a sentence."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "fallow":
            raise
        raise BadRequest(f"a hub needs more than is installed ({error.name}): pip install 'fallow[hub]'") from error
