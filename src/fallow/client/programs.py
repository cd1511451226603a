"""Programs as a client submits them: their files read and hashed, their command checked; and the results of their tasks."""

import base64
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fallow.client.input_files import FileReader, Files, Path_, named
from fallow.client.local_names import local_name
from fallow.client.sweep import ParameterRows
from fallow.client.task_files import TaskFiles
from fallow.model.errors import BadRequest, FallowError, NotFound
from fallow.model.ids import Digest
from fallow.model.page import ResultPage
from fallow.model.program import MAX_PROGRAM_BYTES, Program, check_names, check_program, split_command
from fallow.slot.attempt import BadFile

if TYPE_CHECKING:
    from fallow.client.core import GridCore


class Prepared:
    """A program with what it needs: ready to be sent."""

    def __init__(
        self, program: Program, blobs: Mapping[Digest, Path | bytes], task_files: TaskFiles | None = None
    ) -> None:
        """blobs: its larger files. task_files: those that differ from task to task."""
        self.program = program
        self.blobs = blobs
        self.task_files = task_files
        self.encoded = msgspec.json.encode(program)
        if len(self.encoded) > MAX_PROGRAM_BYTES:
            raise BadRequest(f"the program with its small files is over the limit of {MAX_PROGRAM_BYTES} bytes")

    @property
    def label(self) -> str:
        """For people: the name of what is run."""
        return self.program.label


def prepare(
    command: str | Sequence[str],
    rows: ParameterRows,
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

    rows: the parameters of its tasks. base: where relative paths start; default the current folder.
    """
    for what, given in (("outputs", outputs), ("inputs", inputs)):
        if isinstance(given, (str, bytes)):
            raise BadRequest(f"{what}={given!r:.80} is one text: write a list of them")
    base = base or Path()
    reader = FileReader(base)
    common, own = named(inputs)
    found = tuple(reader.read(common))
    platforms = reader.executables(executables or {})
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
    check_names(program, rows.names)
    if not own:
        return Prepared(program, reader.blobs)
    task_files = TaskFiles(own, base, rows.names, [file.path for file in found])
    task_files.check(rows)
    return Prepared(program, reader.blobs, task_files)


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
            place = Path(self._folder, local_name(name))
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
