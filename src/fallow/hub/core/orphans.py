"""Blobs that no row names: the hub was killed between storing one and its row, or whoever sent it left before naming it."""

import asyncio
from collections.abc import Iterator
from functools import partial

from fallow.hub.core.blob_house import BlobHouse
from fallow.log import Logger
from fallow.model.ids import Digest
from fallow.state.state import State

ORPHAN_S = 3600.0
"""How long a blob stays that nothing names, and how often such are looked for."""
PAUSE_S = 0.02
"""Between parts of a round, so that it is in nobody's way."""

_log = Logger("fallow.hub")


async def sweep_orphans(house: BlobHouse, state: State, state_id: int) -> None:
    """Delete them, in rounds, for as long as the hub runs."""
    while True:
        try:
            if not await house.off_loop(partial(house.blobs.claim, state_id)):
                _log.warning("these blobs are another hub's, or an earlier one's: none is deleted for having no name")
                return
            await _sweep_once(house, state)
        except Exception as error:  # whatever a database or a store raises: the next round makes up for it
            _log.warning("blobs without a name were not looked for", error=repr(error))
        await asyncio.sleep(ORPHAN_S)


async def _sweep_once(house: BlobHouse, state: State) -> None:
    parts = house.blobs.stored(ORPHAN_S)
    while (part := await house.off_loop(partial(_next, parts))) is not None:
        if part:
            unnamed = await house.off_loop(partial(state.unreferenced_blobs, part))
            house.sweep(digest for digest in unnamed if not house.was_confirmed(digest, ORPHAN_S))
        await asyncio.sleep(PAUSE_S)


def _next(parts: Iterator[list[Digest]]) -> list[Digest] | None:
    return next(parts, None)
