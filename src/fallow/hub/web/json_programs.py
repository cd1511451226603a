"""Jobs of programs from JSON: the request's program, with its files kept as blobs where they are large."""

from collections.abc import AsyncIterator

import msgspec

from fallow.hub.core.hub import Hub
from fallow.model.errors import BadRequest, NotFound
from fallow.model.ids import Digest
from fallow.model.program import (
    INLINE_FILE_BYTES,
    MAX_PROGRAM_BYTES,
    InputFile,
    Program,
    check_names,
    check_parameters,
    check_program,
    split_command,
)
from fallow.model.token import Token
from fallow.state.blobs import check_digest


class FileRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the tasks' working folder: its text, its bytes, or the digest of a blob that was uploaded before."""

    path: str
    """In the working folder, with "/" between folders."""
    text: str | None = None
    data: bytes | None = None
    """Base64."""
    digest: str | None = None
    executable: bool = False


class ProgramRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program that runs once for each of a job's items, which are objects of parameters."""

    command: str | list[str]
    """Program and arguments: `{x}` is the parameter x, `{index}` the task's index, `{executable}` the executable for the node's
    platform. A text is split into words as a shell would."""
    shell: bool = False
    """Whether a shell runs the command; parameters are quoted for it."""
    inputs: list[FileRequest] = []
    executables: dict[str, FileRequest] = {}
    """By platform, such as "linux-x86_64"."""
    outputs: list[str] = []
    """Files, folders and patterns that each task must leave in its working folder."""
    environ: dict[str, str | int | float | bool] = {}
    """Environment variables."""
    stdin: str | None = None
    stdin_file: str | None = None
    """A file of the working folder."""
    success_codes: tuple[int, ...] = (0,)
    """Exit codes of tasks that have a result."""
    input_fault_codes: list[int] = []
    """Exit codes of tasks that are never tried again."""


async def make_program(hub: Hub, request: ProgramRequest, token: Token) -> Program:
    """Check the request and keep its files; raises BadRequest that names the fault, NotFound for a blob that is not there."""
    most = INLINE_FILE_BYTES if len(request.executables) == 1 else -1  # of several, nodes are sent their own only
    program = Program(
        command=split_command(request.command, shell=request.shell),
        shell=request.shell,
        inputs=tuple([await _file(hub, each, token) for each in request.inputs]),
        executables={name: await _file(hub, each, token, most) for name, each in request.executables.items()},
        outputs=tuple(dict.fromkeys(request.outputs)),
        environ={name: _text(value) for name, value in request.environ.items()},
        stdin=request.stdin,
        stdin_file=request.stdin_file,
        success_codes=request.success_codes,
        input_fault_codes=tuple(request.input_fault_codes),
    )
    check_program(program)
    return program


def check_items(program: Program, items: list[msgspec.Raw]) -> None:
    """Raise BadRequest unless every item is an object with the parameters that the program's templates name."""
    names: frozenset[str] | None = None
    for index, item in enumerate(items):
        try:
            values = msgspec.json.decode(item, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError:
            raise BadRequest(f"items: item {index} is no object of parameters") from None
        if names is None:
            names = frozenset(values)
            check_names(program, names)
        elif names != values.keys():
            raise BadRequest(
                f"items: item {index} has other parameters than the first one: {', '.join(values) or 'none'}"
            )
        if any(bytes(value)[:1] in {b"{", b"[", b"n"} for value in values.values()):
            check_parameters(msgspec.json.decode(item), f"items: item {index}")
    if names is None:
        check_names(program, ())


def encode(program: Program) -> bytes:
    """Write the blob that tasks are run from; raises BadRequest if it is too large."""
    data = msgspec.json.encode(program)
    if len(data) > MAX_PROGRAM_BYTES:
        raise BadRequest(f"program: with its small files it is over the limit of {MAX_PROGRAM_BYTES} bytes")
    return data


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def whole(data: bytes) -> AsyncIterator[bytes]:
    """Present bytes as a stream of one chunk."""
    yield data


async def _file(hub: Hub, file: FileRequest, token: Token, most_inline: int = INLINE_FILE_BYTES) -> InputFile:
    given = [each for each in (file.text, file.data, file.digest) if each is not None]
    if len(given) != 1:
        raise BadRequest(f"inputs: {file.path!r:.80} has one of text, data and digest")
    if file.digest is not None:
        digest = check_digest(file.digest)
        size = await hub.house.off_loop(lambda: hub.blobs.size(digest))
        if size is None:
            raise NotFound(f"inputs: {file.path!r:.80}: there is no blob {digest}; upload it first")
        return InputFile(file.path, size, Digest(digest), executable=file.executable)
    data = file.data if file.data is not None else (file.text or "").encode()
    if len(data) <= most_inline:
        return InputFile(file.path, len(data), data=data, executable=file.executable)
    digest, size = await hub.front.keep_blob(whole(data), token)
    return InputFile(file.path, size, digest, executable=file.executable)
