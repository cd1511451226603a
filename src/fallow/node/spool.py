"""Finished results that the hub has not acknowledged yet: in memory, and in files that outlive a killed agent.

A record is written before it is sent, without fsync: what the operating system holds survives the agent, and what a
power failure takes is run again. Segments are deleted when everything in them is acknowledged, the last one once it has some
size or the spool is closed: a file made and removed for each result would cost more than all else. So after a restart some
records of a segment may be delivered twice, which does no harm.

Record: u32 length, u32 CRC-32, MessagePack of (lease, job, pages). A torn one at a segment's end is dropped.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from fallow.model.ids import JobId, LeaseId
from fallow.model.page import ResultPage

SEGMENT_BYTES = 16 << 20
REUSED_BYTES = 64 * 1024
"""A segment that is written to is kept until it has this size, though everything in it is acknowledged."""
MEMORY_BYTES = 64 << 20
"""Pages held in memory; beyond, they are read from their segment when they are delivered."""

_HEAD = struct.Struct("<II")
_Body = tuple[LeaseId, JobId, tuple[ResultPage, ...]]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


class Record:
    """One finished Done, until it is acknowledged."""

    __slots__ = ("_body", "_segment", "_span", "job", "lease", "size_bytes")

    def __init__(self, lease: LeaseId, job: JobId, body: tuple[ResultPage, ...] | None, size_bytes: int) -> None:
        self.lease = lease
        self.job = job
        self.size_bytes = size_bytes
        self._body = body
        self._segment: _Segment | None = None
        self._span = (0, 0)

    def pages(self) -> tuple[ResultPage, ...]:
        """Return its pages, from the file if they are not in memory."""
        if self._body is not None:
            return self._body
        assert self._segment is not None
        return self._segment.read(*self._span)[2]


class _Segment:
    """A file of records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.live = 0
        self.size = 0

    def read(self, offset: int, length: int) -> _Body:
        with self.path.open("rb") as file:
            file.seek(offset)
            body: _Body = _decoder.decode(file.read(length))
            return body

    def scan(self) -> Iterator[tuple[int, int, _Body]]:
        data = self.path.read_bytes()
        at = 0
        while at + _HEAD.size <= len(data):
            length, check = _HEAD.unpack_from(data, at)
            start = at + _HEAD.size
            body = data[start : start + length]
            if len(body) != length or zlib.crc32(body) != check:
                return
            yield start, length, _decoder.decode(body)
            at = start + length


class Spool:
    """All unacknowledged records, in order."""

    def __init__(self, folder: Path | None) -> None:
        """folder: None for memory only."""
        self._folder = folder
        self._records: dict[int, Record] = {}
        self._serial = 0
        self._memory_bytes = 0
        self._segment: _Segment | None = None
        self._file: IO[bytes] | None = None
        self._next_segment = 1

    def __len__(self) -> int:
        return len(self._records)

    def open(self) -> None:
        """Read what an earlier agent left."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*.spool")):
            segment = _Segment(path)
            for offset, length, (lease, job, pages) in segment.scan():
                self._put(Record(lease, job, pages, length), segment, (offset, length))
            self._next_segment = int(path.stem) + 1
            if not segment.live:
                path.unlink()

    def add(self, lease: LeaseId, job: JobId, pages: tuple[ResultPage, ...]) -> int:
        """Keep finished pages; returns the record's serial number. Raises OSError if the disk is full: it is kept in
        memory then.
        """
        size = sum(300 + len(page.data or b"") for page in pages)
        record = Record(lease, job, pages, size)
        if self._folder is None:
            return self._put(record, None, (0, 0))
        body = _encoder.encode((lease, job, pages))
        try:
            segment, offset = self._append(body)
        except OSError:
            self._close_segment()
            self._put(record, None, (0, 0))
            raise
        return self._put(record, segment, (offset, len(body)))

    def get(self, serial: int) -> Record | None:
        return self._records.get(serial)

    def serials(self) -> list[int]:
        return list(self._records)

    def acknowledge(self, serial: int) -> None:
        """The hub has it."""
        record = self._records.pop(serial, None)
        if record is None:
            return
        if record._body is not None:
            self._memory_bytes -= record.size_bytes
        segment = record._segment
        if segment is not None:
            segment.live -= 1
            if not segment.live and segment is not self._segment:
                segment.path.unlink(missing_ok=True)
            elif not segment.live and segment.size >= REUSED_BYTES:
                self._close_segment()

    def close(self) -> None:
        self._close_segment()

    def _put(self, record: Record, segment: _Segment | None, span: tuple[int, int]) -> int:
        record._segment, record._span = segment, span
        if segment is not None:
            segment.live += 1
            if self._memory_bytes + record.size_bytes > MEMORY_BYTES:
                record._body = None
        if record._body is not None:
            self._memory_bytes += record.size_bytes
        self._serial += 1
        self._records[self._serial] = record
        return self._serial

    def _append(self, body: bytes) -> tuple[_Segment, int]:
        assert self._folder is not None
        if self._segment is None or self._segment.size >= SEGMENT_BYTES:
            self._close_segment()
            self._segment = _Segment(self._folder / f"{self._next_segment:010}.spool")
            self._next_segment += 1
            self._file = self._segment.path.open("wb", buffering=0)
        assert self._file is not None
        head = _HEAD.pack(len(body), zlib.crc32(body))
        if self._file.write(head + body) != len(head) + len(body):
            raise OSError(f"{self._segment.path} could not be written whole: the disk is full")
        offset = self._segment.size + len(head)
        self._segment.size += len(head) + len(body)
        return self._segment, offset

    def _close_segment(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._segment is not None and not self._segment.live:
            with contextlib.suppress(OSError):  # what stays is delivered twice
                self._segment.path.unlink()
        self._file = self._segment = None
