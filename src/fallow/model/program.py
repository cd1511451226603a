"""Programs: a command that is run once for each set of parameters, in a fresh folder with its files.

A program job has the one stage "run" and the codec json: its function is a `Program` as JSON, its items are objects of
parameters. Command, environment variables, standard input and names of outputs are templates: `{x}` is the parameter x,
`{index}` the task's index, `{executable}` the executable for the node's platform, and doubled braces are literal ones.
"""

import re
import shlex
import string
from collections.abc import Collection, Iterator, Mapping, Sequence, Set

import msgspec

from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.model.requirements import SHOWN

INLINE_FILE_BYTES = 64 * 1024
"""Files up to this size travel inside the program or the result; larger ones are blobs."""
MAX_PROGRAM_BYTES = 32 << 20
"""A program with its small input files, as JSON."""
MAX_BLOB_FILES = 2_000
"""Input files that are blobs: references of a job are bounded."""
MAX_FILES = 20_000
MAX_PATTERNS = 1_000
MAX_ARGUMENTS = 10_000
MAX_TEXT = 1 << 20
"""Characters of one template."""
MAX_PARAMETERS = 1_000
RESERVED_OUTPUTS = ("stdout", "stderr")
"""What a task writes there is kept anyway, under these names."""
BUILT_IN = ("index", "executable")
"""Placeholders that are no parameters."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORMAT = re.compile(r"[^{}]{0,16}")
_PLATFORM = re.compile(r"[a-z0-9_]+-[a-z0-9_]+")
_WIDTH = re.compile(r"\d{4}")


class InputFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that every task finds in its folder: either its bytes, or the blob that has them."""

    path: str
    """In the working folder, with "/" between folders."""
    size: int
    digest: Digest | None = None
    data: bytes | None = None
    executable: bool = False


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is run for each set of parameters."""

    command: tuple[str, ...]
    """Program and arguments; with `shell` one text."""
    shell: bool = False
    inputs: tuple[InputFile, ...] = ()
    executables: dict[str, InputFile] = {}
    """By platform, such as "linux-x86_64"."""
    outputs: tuple[str, ...] = ()
    """Files, folders and patterns (`*`, `?`, `**`) that each task must leave in its folder."""
    environ: dict[str, str] = {}
    stdin: str | None = None
    stdin_file: str | None = None
    """A file of the working folder."""
    success_codes: tuple[int, ...] = (0,)
    """Exit codes with which a task has a result."""
    input_fault_codes: tuple[int, ...] = ()
    """Exit codes that blame the task's parameters or files: it is not tried again."""

    @property
    def label(self) -> str:
        """For people: the name of what is run."""
        first = self.command[0].split() or [""]
        return first[0].rsplit("/", 1)[-1][:SHOWN] or "program"

    @property
    def blobs(self) -> tuple[Digest, ...]:
        """The files that all nodes need, each once."""
        return tuple(dict.fromkeys(file.digest for file in self.inputs if file.digest is not None))

    @property
    def platform_blobs(self) -> dict[str, Digest]:
        """The executables, for nodes of their platform only."""
        return {name: file.digest for name, file in self.executables.items() if file.digest is not None}

    def templates(self) -> Iterator[tuple[str, str]]:
        """Yield every template with the name of what it is for."""
        yield from (("command", text) for text in self.command)
        yield from (("outputs", text) for text in self.outputs)
        yield from ((f"environ: {name}", text) for name, text in self.environ.items())
        yield from ((what, text) for what in ("stdin", "stdin_file") if (text := getattr(self, what)) is not None)


def split_command(command: str | Sequence[str], *, shell: bool) -> tuple[str, ...]:
    """Return a command's words; with a shell it is one text. Raises BadRequest."""
    if not isinstance(command, str):
        if shell:
            raise BadRequest("command: with shell it is one text, not a list")
        return tuple(map(str, command))
    if shell:
        return (command,)
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise BadRequest(f"command: {command!r:.{SHOWN}} can't be split into words: {str(error).lower()}") from None


def placeholders(template: str, what: str) -> set[str]:
    """Return the names between braces; raises BadRequest for what is no template."""
    names = set()
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadRequest(
            f"{what}: {template!r:.{SHOWN}}: {str(error).lower()}; write {{{{ and }}}} for braces that are meant as such"
        ) from None
    for _, name, form, conversion in pieces:
        if name is None:
            continue
        if not _NAME.fullmatch(name) or conversion is not None:
            raise BadRequest(
                f"{what}: {{{name}}} in {template!r:.{SHOWN}} is no placeholder: it is the name of a parameter, and "
                "perhaps a format as in {x:.3f}; write {{ and }} for braces that are meant as such"
            )
        if form and (not _FORMAT.fullmatch(form) or _WIDTH.search(form)):
            raise BadRequest(f"{what}: the format {form!r:.{SHOWN}} of {{{name}}} is none for one parameter")
        names.add(name)
    return names


def check_names(program: Program, parameters: Collection[str]) -> None:
    """Raise BadRequest unless every placeholder is a parameter or built in."""
    check_parameter_names(parameters)
    known = {*parameters, *BUILT_IN}
    for what, template in program.templates():
        check_template(what, template, known)


def check_template(what: str, template: str, known: Set[str]) -> None:
    """Raise BadRequest unless all names between braces are known."""
    unknown = placeholders(template, what) - known
    if unknown:
        raise BadRequest(
            f"{what}: there is no parameter {_listed(unknown)} for {template!r:.{SHOWN}}; there are "
            f"{_listed(known - {'executable'})}; write {{{{ and }}}} for braces that are meant as such"
        )


def check_parameter_names(names: Collection[str]) -> None:
    if len(names) > MAX_PARAMETERS:
        raise BadRequest(f"parameters: {len(names)} are over the limit of {MAX_PARAMETERS}")
    for name in names:
        if not _NAME.fullmatch(name) or len(name) > SHOWN or name in BUILT_IN:
            raise BadRequest(
                f"parameters: {name!r:.{SHOWN}} is no name: letters, digits and _, not {_listed(BUILT_IN)}"
            )


def check_program(program: Program) -> None:
    """Raise BadRequest, naming the faulty part, unless a node can make sense of it."""
    if not program.command or not program.command[0].strip() or len(program.command) > MAX_ARGUMENTS:
        raise BadRequest(f"command: it is a program and up to {MAX_ARGUMENTS} arguments")
    if program.shell and len(program.command) > 1:
        raise BadRequest("command: with shell it is one text")
    uses_executable = False
    for what, template in program.templates():
        if len(template) > MAX_TEXT or "\0" in template:
            raise BadRequest(f"{what}: a text of up to {MAX_TEXT} characters without NUL")
        uses_executable = uses_executable or "executable" in placeholders(template, what)
    if uses_executable and not program.executables:
        raise BadRequest("command: {executable} needs `executables`, one for each platform")
    if program.executables and not uses_executable:
        raise BadRequest("executables: the command does not use {executable}")
    for platform in program.executables:
        if not _PLATFORM.fullmatch(platform) or len(platform) > SHOWN:
            raise BadRequest(f'executables: {platform!r:.{SHOWN}} is no platform such as "linux-x86_64"')
    for name in program.environ:
        if not name or "=" in name or "\0" in name or len(name) > SHOWN * 10:
            raise BadRequest(f"environ: {name!r:.{SHOWN}} is no name of an environment variable")
    if program.stdin is not None and program.stdin_file is not None:
        raise BadRequest("stdin: it comes from a text or from a file, not from both")
    _check_files(program)
    _check_outputs(program.outputs)
    for what, codes in (("success_codes", program.success_codes), ("input_fault_codes", program.input_fault_codes)):
        if len(codes) > 256 or not all(0 <= code < 1 << 32 for code in codes):
            raise BadRequest(f"{what}: exit codes are whole numbers from 0 to 255")
    if both := set(program.success_codes) & set(program.input_fault_codes):
        raise BadRequest(f"input_fault_codes: {_listed(map(str, both))} can't be a success as well")


def _check_files(program: Program) -> None:
    if len(program.inputs) > MAX_FILES:
        raise BadRequest(
            f"inputs: {len(program.inputs)} files are over the limit of {MAX_FILES}; pack them in an archive"
        )
    if len(program.blobs) > MAX_BLOB_FILES:
        raise BadRequest(
            f"inputs: {len(program.blobs)} files of over {INLINE_FILE_BYTES >> 10} KiB are over the limit of "
            f"{MAX_BLOB_FILES}; pack them in an archive"
        )
    seen: set[str] = set()
    for file in (*program.inputs, *program.executables.values()):
        check_inside(file.path, "inputs")
        if (file.digest is None) == (file.data is None) or file.size < 0:
            raise BadRequest(f"inputs: {file.path!r:.{SHOWN}} has either data or a digest")
    for file in program.inputs:
        if file.path in seen:
            raise BadRequest(f"inputs: two files are called {file.path!r:.{SHOWN}} in the working folder")
        seen.add(file.path)
    for path in seen:
        parts = path.split("/")
        if inside := next((p for n in range(1, len(parts)) if (p := "/".join(parts[:n])) in seen), None):
            raise BadRequest(f"inputs: {inside!r:.{SHOWN}} is a file and a folder")


def _check_outputs(outputs: Collection[str]) -> None:
    if len(outputs) > MAX_PATTERNS:
        raise BadRequest(f"outputs: {len(outputs)} patterns are over the limit of {MAX_PATTERNS}")
    for pattern in outputs:
        check_inside(pattern, "outputs")
        if pattern.split("/")[0] in RESERVED_OUTPUTS:
            raise BadRequest(
                f"outputs: {pattern!r:.{SHOWN}} would hide what the task writes there, which is kept anyway"
            )


def check_inside(path: str, what: str) -> None:
    """Raise BadRequest unless a path, or a pattern of paths, stays inside the working folder whatever the system."""
    parts = path.removesuffix("/").split("/")
    if not path or "\\" in path or "\0" in path or len(path) > 4_000:
        raise BadRequest(f'{what}: {path!r:.{SHOWN}} is no path; folders are separated by "/"')
    if ".." in parts or not parts[0] or ":" in parts[0]:
        raise BadRequest(f"{what}: {path!r:.{SHOWN}} lies outside of the task's working folder")
    if any(part in {"", "."} for part in parts):
        raise BadRequest(f"{what}: {path!r:.{SHOWN}} is not written plainly: leave out what stands for nothing")


def check_parameters(values: Mapping[str, object], what: str) -> None:
    """Raise BadRequest unless all values can stand in a command: texts, numbers, booleans."""
    for name, value in values.items():
        if not isinstance(value, (str, int, float)):
            raise BadRequest(f"{what}: {name}={value!r:.{SHOWN}} is neither a text nor a number nor true or false")


def _listed(names: object) -> str:
    return ", ".join(sorted(names))  # type: ignore[call-overload]
