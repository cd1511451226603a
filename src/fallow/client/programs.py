"""Programs as a client submits them: their files read and hashed, their command checked; and the results of their tasks."""

import base64
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3
import msgspec

from fallow.model.errors import BadRequest, FallowError, NotFound
from fallow.model.ids import Digest
from fallow.model.page import ResultPage
from fallow.model.program import (
    INLINE_FILE_BYTES,
    MAX_FILES,
    MAX_PROGRAM_BYTES,
    InputFile,
    Program,
    check_names,
    check_program,
    split_command,
)
from fallow.slot.attempt import BadFile, inside

if TYPE_CHECKING:
    from fallow.client.core import GridCore

MAX_INLINE_BYTES = 4 << 20
"""Small input files that travel inside the program; further ones are blobs."""

Path_ = str | os.PathLike[str]
Files = Iterable[Path_] | Mapping[str, "Path_ | bytes"]
"""Files and folders, under their own names or others."""


class Prepared:
    """A program with what it needs: ready to be sent."""

    def __init__(self, program: Program, blobs: Mapping[Digest, Path | bytes]) -> None:
        """blobs: its larger files."""
        self.program = program
        self.blobs = blobs
        self.encoded = msgspec.json.encode(program)
        if len(self.encoded) > MAX_PROGRAM_BYTES:
            raise BadRequest(f"the program with its small files is over the limit of {MAX_PROGRAM_BYTES} bytes")

    @property
    def label(self) -> str:
        """For people: the name of what is run."""
        return self.program.label


def prepare(
    command: str | Sequence[str],
    names: Collection[str],
    *,
    inputs: Files = (),
    outputs: Iterable[str] = (),
    executables: Mapping[str, Path_] | None = None,
    environ: Mapping[str, str] | None = None,
    stdin: str | None = None,
    stdin_file: str | None = None,
    shell: bool = False,
    success_codes: Iterable[int] = (0,),
    input_fault_codes: Iterable[int] = (),
    base: Path | None = None,
) -> Prepared:
    """Read what a program needs; raises BadRequest that names the fault.

    names: of its parameters. base: where relative paths start; default the current folder.
    """
    for what, given in (("outputs", outputs), ("inputs", inputs)):
        if isinstance(given, (str, bytes)):
            raise BadRequest(f"{what}={given!r:.80} is one text: write a list of them")
    reader = _FileReader(base or Path())
    found = tuple(reader.read(inputs))
    platforms = {platform: reader.executable(platform, path) for platform, path in (executables or {}).items()}
    try:
        program = Program(
            command=split_command(command, shell=shell),
            shell=shell,
            inputs=found,
            executables=platforms,
            outputs=tuple(dict.fromkeys(map(str, outputs))),
            environ={str(name): str(value) for name, value in (environ or {}).items()},
            stdin=stdin,
            stdin_file=stdin_file,
            success_codes=tuple(map(int, success_codes)),
            input_fault_codes=tuple(map(int, input_fault_codes)),
        )
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, BadRequest) else BadRequest(f"exit codes are whole numbers: {error}") from None
    check_program(program)
    check_names(program, names)
    return Prepared(program, reader.blobs)


class _FileReader:
    """Reads input files: small ones whole, of large ones the digest."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._inline_bytes = 0
        self._count = 0
        self.blobs: dict[Digest, Path | bytes] = {}

    def read(self, inputs: Files) -> Iterable[InputFile]:
        if isinstance(inputs, Mapping):
            named: Iterable[tuple[str, Any]] = inputs.items()
        else:
            named = (
                (Path(each).resolve().name if str(each) in {"", ".", ".."} else Path(each).name, each)
                for each in inputs
            )
        for name, source in named:
            if isinstance(source, bytes):
                yield self._kept(name, source, len(source), is_executable=False)
                continue
            path = self._base / source
            if path.is_dir():
                yield from self._folder(name, path)
            else:
                yield self._file(name, path, "inputs")

    def executable(self, platform: str, source: Path_) -> InputFile:
        path = self._base / source
        return msgspec.structs.replace(self._file(path.name, path, f"executables: {platform}"), executable=True)

    def _folder(self, name: str, folder: Path) -> Iterable[InputFile]:
        for here, folders, files in os.walk(folder):
            folders.sort()
            for each in folders:
                if (Path(here) / each).is_symlink():
                    raise BadRequest(f"inputs: {Path(here) / each} is a link to a folder; name that folder itself")
            for each in sorted(files):
                path = Path(here) / each
                yield self._file(f"{name}/{path.relative_to(folder).as_posix()}", path, "inputs")

    def _file(self, name: str, path: Path, what: str) -> InputFile:
        self._count += 1
        if self._count > MAX_FILES:
            raise BadRequest(f"{what}: over {MAX_FILES} files; pack them in an archive")
        try:
            if not path.is_file():
                raise BadRequest(f"{what}: {path} is {'no plain file' if path.exists() else 'not there'}")
            facts = path.stat()
            is_executable = os.name != "nt" and os.access(path, os.X_OK)
            if facts.st_size <= INLINE_FILE_BYTES:
                return self._kept(name, path.read_bytes(), facts.st_size, is_executable=is_executable, path=path)
            hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
            hasher.update_mmap(path)
        except OSError as error:
            raise BadRequest(f"{what}: {path} can't be read: {error.strerror}") from None
        digest = Digest(hasher.hexdigest())
        self.blobs[digest] = path
        return InputFile(name, facts.st_size, digest, executable=is_executable)

    def _kept(self, name: str, data: bytes, size: int, *, is_executable: bool, path: Path | None = None) -> InputFile:
        self._inline_bytes += size
        if size <= INLINE_FILE_BYTES and self._inline_bytes <= MAX_INLINE_BYTES:
            return InputFile(name, size, data=data, executable=is_executable)
        digest = Digest(blake3.blake3(data).hexdigest())
        self.blobs[digest] = path or data
        return InputFile(name, size, digest, executable=is_executable)


class ProgramResult:
    """What one task of a program came to."""

    __slots__ = ("_core", "_files", "_folder", "_value", "index")

    def __init__(self, core: "GridCore", index: int, value: Mapping[str, Any], page: ResultPage) -> None:
        self._core = core
        self._value = value
        self._files = page.files
        self._folder: str | None = None
        self.index = index
        """The task's index."""

    def __repr__(self) -> str:
        names = ", ".join(self.outputs)
        return f"<ProgramResult {self.index}: exit code {self.exit_code}, {self.seconds:.3g} s{', ' if names else ''}{names}>"

    @property
    def exit_code(self) -> int:
        return int(self._value["exit_code"])

    @property
    def seconds(self) -> float:
        """How long the program ran."""
        return float(self._value["seconds"])

    @property
    def cpu_seconds(self) -> float | None:
        """Processor time that it and what it waited for took; None where the system does not tell."""
        return self._value.get("cpu_seconds")

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory that it held; None where the system does not tell."""
        return self._value.get("peak_memory_bytes")

    @property
    def node(self) -> str:
        """Name of the node that ran it."""
        return str(self._value.get("node", ""))

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self._value["parameters"])

    @property
    def stdout(self) -> str:
        """What the program wrote to its standard output."""
        return self.content(self._value["stdout"]).decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """What the program wrote to its standard error."""
        return self.content(self._value["stderr"]).decode("utf-8", "replace")

    @property
    def outputs(self) -> dict[str, int]:
        """Names and sizes, in bytes, of the output files."""
        return {name: file["size"] for name, file in self._value["outputs"].items()}

    def read(self, name: str) -> bytes:
        """Return an output file's bytes, fetched from the grid if it is large. Raises NotFound."""
        return self.content(self._entry(name))

    def path(self, name: str) -> Path:
        """Return a file with an output's bytes, which lives as long as the grid handle. Raises NotFound."""
        entry = self._entry(name)
        if self._folder is None:
            self._folder = tempfile.mkdtemp(dir=self._core.temporary_folder())
        try:
            place = Path(self._folder, inside(name))
        except BadFile as error:  # a node that lies
            raise FallowError(f"task {self.index}: {error}") from None
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            data = inline_bytes(entry)
            if data is None:
                self._core.fetch_to(self.digest(entry), place)
            else:
                place.write_bytes(data)
        return place

    def files(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Yield name and record (`fallow.slot.program`) of all that there is, stdout and stderr if they are not empty."""
        yield from self._value["outputs"].items()
        for name in ("stdout", "stderr"):
            if self._value[name]["size"]:
                yield name, self._value[name]

    def content(self, file: Mapping[str, Any]) -> bytes:
        """Return the bytes of a file's record."""
        data = inline_bytes(file)
        if data is not None:
            return data
        found = self._core.fetch(self.digest(file))
        return found.read_bytes() if isinstance(found, Path) else found

    def digest(self, file: Mapping[str, Any]) -> Digest:
        """Return the digest of a file that is a blob."""
        position: int = file["file"]
        return self._files[position]

    def _entry(self, name: str) -> Mapping[str, Any]:
        entry: Mapping[str, Any] | None = self._value["outputs"].get(name)
        if entry is None:
            raise NotFound(f"task {self.index} put out no {name!r}, but {', '.join(self.outputs) or 'nothing'}")
        return entry


def inline_bytes(file: Mapping[str, Any]) -> bytes | None:
    """Return the bytes of a file that travelled inside the result; None if it is a blob."""
    if "text" in file:
        return str(file["text"]).encode()
    return base64.b64decode(file["data"]) if "data" in file else None
