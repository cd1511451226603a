"""Pages: blocks of consecutive inputs or results, the unit of transfer and of storage.

The bytes in a page are opaque here: only clients and slots know their layout (`fallow.slot.pages`).
"""

import msgspec

from fallow.model.failure import Failure
from fallow.model.ids import Digest, JobId

INLINE_BYTES = 960 * 1024
"""Pages up to this size travel in frames and live in the database; larger ones are blobs. Below 1 MiB, the frame limit."""

MAX_PAGE_REFS = 10_000
"""Blobs that the items of one page may refer to: 660 KB of digests, which a frame holds beside a page that is a blob."""
REF_BYTES = 66
"""What a digest takes in a frame."""


class InputPage(msgspec.Struct, frozen=True, array_like=True):
    """The inputs `[start, stop)` of one job."""

    job: JobId
    start: int
    stop: int
    data: bytes | None
    """The page's bytes, or None if they are a blob."""
    blob: Digest | None = None
    refs: tuple[Digest, ...] = ()
    """Blobs that the items refer to (`grid.put`); a slot needs them before it can unpickle the page."""
    kept: tuple[int, ...] | None = None
    """Flat ranges of the indices that the page has an item for, in order; None means all. A parent's result page, as
    input of the job that goes on from it, lacks what was filtered out."""
    counts: tuple[int, ...] | None = None
    """Flat ranges of the indices for which this page, and no other that overlaps it, is to be used; None means all."""


class ResultPage(msgspec.Struct, frozen=True, array_like=True):
    """The results of the inputs `[start, stop)` of one job, from one batch.

    Of the indices in the page, those in `kept` have a value, in order, in the page's bytes; those in
    `failures` failed; the rest were filtered out. A partial of `reduce` is a page with one value for
    its whole range (`partial=True`), which counts whole or not at all.
    """

    start: int
    stop: int
    data: bytes | None = None
    """One pickle of the list of values, or None if there is none or it is a blob."""
    blob: Digest | None = None
    kept: tuple[int, ...] | None = None
    """Flat ranges of the indices that have a value; None means all of `[start, stop)`."""
    failures: tuple[Failure, ...] = ()
    partial: bool = False
    elapsed_s: float = 0.0
    """Time that the slot spent in the batch, for the scheduler's estimate of seconds per task."""
    files: tuple[Digest, ...] = ()
    """Blobs that the values refer to by their position here: the larger files that programs put out."""

    @property
    def blobs(self) -> tuple[Digest, ...]:
        return self.files if self.blob is None else (self.blob, *self.files)


class StoredPage(msgspec.Struct, frozen=True, array_like=True):
    """A result page together with the sub-ranges of it that count (others were settled before it came)."""

    page: ResultPage
    counts: tuple[int, ...]
    """Flat ranges."""
