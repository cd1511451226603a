"""Jobs of programs as users hold them."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from fallow.client.download import By, Downloaded, download
from fallow.client.failures import exception_of
from fallow.client.feeding import ParameterSource, Source
from fallow.client.job import Job
from fallow.client.options import Options
from fallow.client.programs import Prepared, ProgramResult
from fallow.client.sweep import ParameterRows
from fallow.client.task_files import TaskFilesSource
from fallow.model.ids import Digest
from fallow.model.job import JobInfo, StageKind
from fallow.model.page import ResultPage

if TYPE_CHECKING:
    from fallow.client.core import GridCore


class ProgramJob(Job[ProgramResult]):
    """A program over many sets of parameters. Iterate over it for the results, in order."""

    _codec = "json"
    _can_fuse = False

    def __init__(
        self,
        core: "GridCore",
        prepared: Prepared | None,
        source: Source,
        options: Options,
        *,
        info: JobInfo | None = None,
    ) -> None:
        """prepared: None if the job exists already, which `info` describes."""
        super().__init__(core, (("run", cast("Callable[..., Any]", prepared)),), source, options, info=info)

        def present(values: Sequence[Any], indices: Sequence[int], page: ResultPage) -> list[Any]:
            return [ProgramResult(core, index, value, page) for index, value in zip(indices, values, strict=True)]

        self._state.present = present

    def _encode(self, stages: tuple[tuple[StageKind, Callable[..., Any]], ...]) -> tuple[bytes, tuple[Digest, ...]]:
        prepared = cast("Prepared", stages[0][1])
        return prepared.encoded, prepared.program.blobs

    def errors(self) -> list[tuple[int, BaseException]]:
        """Return (index, exception) of the tasks that failed so far: the first 100 of them."""
        failures = self.info().first_failures
        return [(each.index, exception_of(msgspec.structs.replace(each, exception=None))) for each in failures]

    def download(self, folder: str | os.PathLike[str], *, by: By = "index") -> Downloaded:
        """Write each task's outputs, stdout and stderr into `folder/<index>/…`, as the tasks end; wait for all of them.

        by: "parameters" names the folders by those instead, as `x=1,y=2`. What an earlier call has left there is checked and
        kept, and a file that came only in part is gone on with. Failed tasks are listed in what is returned. Raises BadRequest,
        OSError.
        """
        return download(self._core, self, folder, by)


def of_program(options: Options, prepared: Prepared, given: Mapping[str, Any]) -> Options:
    """Return options as a program needs them: any Python will do, but one of its platforms."""
    needs = options.requirements
    contained = options.containment
    if "python" not in (given.get("requires") or {}):
        needs = msgspec.structs.replace(needs, python=None)
        contained = msgspec.structs.replace(contained, python=None)
    platforms = tuple(sorted(prepared.program.executables))
    needs = msgspec.structs.replace(needs, platforms=platforms)
    executables = tuple(prepared.program.platform_blobs.items())
    return msgspec.structs.replace(options, requirements=needs, containment=contained, executables=executables)


def source_of(prepared: Prepared, rows: ParameterRows) -> ParameterSource:
    """Return a program's parameters, with the files that belong to them, as a job's inputs."""
    length = rows.known_length()
    if prepared.task_files is None:
        return ParameterSource(rows, length, prepared.blobs)
    return TaskFilesSource(rows, length, prepared.blobs, prepared.task_files)
