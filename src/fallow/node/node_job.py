"""A job as a node holds it: its spec, its function and sources once they are here, and how it is sent to slots."""

import json
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.model.job import Counting, JobSpec
from fallow.model.page import INLINE_BYTES
from fallow.node.batch_sizer import BatchSizer
from fallow.node.given_files import Holder
from fallow.node.page_shelf import ShelvedPage
from fallow.node.slot_kind import SlotKind
from fallow.node.slot_process import SlotProcess
from fallow.slot.program import platform_name
from fallow.slot.protocol import FORGET, HEADER, LOAD, PAGE, RESUME, RUN

MAX_SOURCE_BYTES = 512 << 20
"""Size of a source archive's files, unpacked: local modules are text."""
MAX_SOURCE_FILES = 20_000

PLATFORM = platform_name()

DIRECT_PAGE = 1 << 60
"""Number of the input page of direct calls; those of leases count from 0."""


class NodeJob:
    """One job, from the first lease until Forget."""

    def __init__(self, number: int, spec: JobSpec, kind: SlotKind) -> None:
        self.number = number
        self.kind = kind
        self.spec = spec
        self.counts = isinstance(spec.inputs, Counting)
        self.sizer = BatchSizer(reduces=spec.reduces, singly=spec.is_program)
        self.missing: set[Digest] = set(spec.blobs_on(PLATFORM))
        self.broken: str | None = None
        """Why it can't run here at all."""
        self.lacks_environment = False
        """Whether that is no fault of its own: another node may have what it needs."""
        self._function: bytes | Path | None = None
        self._sources: Sequence[Path] = ()
        self._refs: Mapping[Digest, Path] = {}

    @property
    def is_ready(self) -> bool:
        return self._function is not None

    def prepare(self, function: Path, sources: Sequence[Path], refs: Mapping[Digest, Path]) -> None:
        """Everything is here. sources: the unpacked folders."""
        is_large = function.stat().st_size > INLINE_BYTES
        self._function = function if is_large else function.read_bytes()
        self._sources = sources
        self._refs = refs

    def load_message(self, process: SlotProcess) -> bytes:
        """Build what makes a slot know the job, and give it the files that it needs; raises OSError if that can't be."""
        spec, function = self.spec, self._function
        assert function is not None
        holder: Holder = ("job", self.number)
        data = function if isinstance(function, bytes) else b""
        counting = [spec.inputs.start, spec.inputs.step] if isinstance(spec.inputs, Counting) else None
        head = [
            spec.stages,
            spec.codec,
            process.give(function, holder) if isinstance(function, Path) else None,
            counting,
            spec.timeout_s is not None,
            [process.give(folder, None) for folder in self._sources],
            {digest: process.give(path, holder) for digest, path in self._refs.items()},
        ]
        return self._message(LOAD, head, data, (round(spec.checkpoint_s * 1000), 0), 0)

    def page_message(
        self, shelved: ShelvedPage, path: Path | None, refs: Mapping[Digest, Path], process: SlotProcess
    ) -> bytes:
        """Build what sends an input page, and give the slot its files; raises OSError. path: the file, if the page is a blob."""
        page = shelved.page
        head = None
        if path is not None or page.kept is not None or refs:
            given = {digest: process.give(each, ("job", self.number)) for digest, each in refs.items()}
            head = [None if path is None else process.give(path, ("page", shelved.number)), page.kept, given]
        data = b"" if path is not None else page.data or b""
        return self._message(PAGE, head, data, (page.start, page.stop), shelved.number)

    def resume_message(self, index: int, path: Path, process: SlotProcess) -> bytes:
        """Build what lets a task go on from the checkpoint in a file; raises OSError."""
        text = os.fsencode(process.give(path, ("job", self.number)))
        return HEADER.pack(RESUME, self.number, len(text), index, 0, 0, 0) + text

    def run_message(self, start: int, stop: int, page: int, number: int) -> bytes:
        return HEADER.pack(RUN, self.number, 0, start, stop, page, number)

    def direct_message(self, index: int, data: bytes, number: int) -> bytes:
        """Build what runs a direct call. data: its input page, which replaces that of the last one."""
        page = HEADER.pack(PAGE, self.number, len(data), index, index + 1, 0, DIRECT_PAGE)
        return page + data + HEADER.pack(RUN, self.number, 0, index, index + 1, DIRECT_PAGE, number)

    def forget_message(self, page: int = -1) -> bytes:
        """Build what makes a slot drop a page, or the whole job."""
        return HEADER.pack(FORGET, self.number, 0, page, 0, 0, 0)

    def _message(self, kind: int, head: object, data: bytes, span: tuple[int, int], number: int) -> bytes:
        text = b"" if head is None else json.dumps(head).encode()
        return b"".join((HEADER.pack(kind, self.number, len(text) + len(data), *span, len(text), number), text, data))


def unpack_sources(archive: Path, folder: Path) -> None:
    """Unpack a source archive into a new folder, which appears whole. Two jobs may do so at the same time.

    Raises BadRequest for an archive that would write outside of it, holds links, or is over its limits.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix="partial-"))
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = zipped.infolist()
            if len(members) > MAX_SOURCE_FILES or sum(member.file_size for member in members) > MAX_SOURCE_BYTES:
                raise BadRequest(f"a source archive of over {MAX_SOURCE_FILES} files or {MAX_SOURCE_BYTES} bytes")
            for member in members:
                _check(member)
            zipped.extractall(partial)
        partial.chmod(0o755)  # a container's user is another
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():  # else another job's unpacking was faster
                raise
    except zipfile.BadZipFile as error:
        raise BadRequest(f"a source archive is damaged: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
        raise BadRequest(f"a source archive holds {member.filename!r}, which lies outside of it")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise BadRequest(f"a source archive holds a link, {member.filename!r}")
