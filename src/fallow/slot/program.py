"""Runs a program once for each set of parameters: a fresh folder with its inputs, the process, its outputs.

The description is `fallow.model.program.Program` as JSON. A result is a JSON object:

    {"exit_code", "seconds", "cpu_seconds", "peak_memory_bytes", "node", "parameters", "stdout": FILE, "stderr": FILE,
     "outputs": {name: FILE}}

FILE is {"size"} and either "text" (UTF-8), "data" (base64) or "file" (position in the files that go with the result); and
"executable", if it is. A task's parameters may bring files of its own, under a name that no parameter can have.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fallow.slot import attempt, strays, templates
from fallow.slot.attempt import Attempt
from fallow.slot.failures import Told
from fallow.slot.output_files import OutputFiles
from fallow.slot.protocol import ENVIRONMENT_FAULT, INPUT_FAULT, NODE_FAULT, PROGRAM_FAILED

FILES = "/inputs"
"""Where a task's parameters have its own input files, like the program's `inputs`."""
TAIL_BYTES = 4 * 1024
"""Of what a failed program wrote to stderr (or stdout), told with its failure."""
SHOWN_LINES = 5
SHELL_NOT_RUN = (126, 127)
"""Exit codes of a shell that could not run a command, or not find it."""


class Runner:
    """One program in one slot."""

    def __init__(self, program: Mapping[str, Any], paths: Mapping[str, str], folder: str) -> None:
        """paths: of blobs, by digest. folder: the slot's own."""
        self._program = program
        self._paths = paths
        self._folder = folder
        self._success = set(program.get("success_codes", (0,)))
        self._input_faults = set(program.get("input_fault_codes", ()))
        is_same = "{" not in program["command"][0].partition(" ")[0].replace("{executable}", "")
        self._lacking = NODE_FAULT if is_same else ENVIRONMENT_FAULT
        """Whose fault it is that there is no such program: the node's, if all tasks run the same."""
        self._executable = _executable_for(program.get("executables", {}))
        self.refs: Mapping[str, str] = {}
        """Paths of the blobs that the input page at hand refers to."""
        self._files: list[str] = []

    def take_files(self) -> list[str]:
        """Return the files that the results since the last call refer to."""
        files, self._files = self._files, []
        return files

    def __call__(self, index: int, parameters: Any) -> dict[str, Any]:
        """Run one task; raises Told, which says whose fault it is."""
        plain = {name: value for name, value in parameters.items() if name != FILES}
        values = templates.Values({**plain, "index": index})
        try:
            return self._run(values, plain, parameters.get(FILES, ()))
        except BaseException:
            for path in self.take_files():
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise

    def _run(self, values: templates.Values, parameters: Mapping[str, Any], own: Sequence[Any]) -> dict[str, Any]:
        with Attempt(self._folder) as place:
            command, options = self._prepare(place, values, own)
            names = self._outputs(values)
            began = time.perf_counter()
            code, usage = self._execute(place, command, options)
            seconds = time.perf_counter() - began
            if code < 0:
                raise self._environment(f"the program was ended by {_signal_name(-code)}", place)
            self._judge(code, place, is_shell=bool(options.get("shell")))
            files = OutputFiles(self._folder, place, self._files)
            value: dict[str, Any] = {"exit_code": code, "seconds": round(seconds, 6), **usage}
            value["node"] = os.environ.get("FALLOW_NODE", "")
            value["parameters"] = parameters
            value["stdout"], value["stderr"] = files.stream(place.stdout), files.stream(place.stderr)
            try:
                value["outputs"] = files.collect(names)
            except attempt.BadFile as error:
                raise self._fault(INPUT_FAULT, f"{error} (exit code {code})", place) from None
            return value

    # --- before ---

    def _prepare(
        self, place: Attempt, values: templates.Values, own: Sequence[Any]
    ) -> tuple[Sequence[str] | str, dict[str, Any]]:
        program = self._program
        try:
            for file in program.get("inputs", ()):
                place.put(file, self._paths)
            for file in own:
                place.put(file, self.refs)
        except OSError as error:
            raise self._environment(f"its files can't be laid out: {error}", None) from None
        if self._executable is not None:
            values["executable"] = place.put_executable(self._executable, self._paths)
        elif program.get("executables"):
            raise Told(NODE_FAULT, f"there is no executable for {platform_name()}")
        try:
            environ = {name: values.fill(text) for name, text in program.get("environ", {}).items()}
            text, name = program.get("stdin"), program.get("stdin_file")
            if text is not None:
                place.give_stdin(values.fill(text))
            elif name is not None:
                place.take_stdin(values.fill(name))
            if program.get("shell"):
                command: Sequence[str] | str = values.fill(program["command"][0], quote=templates.quoted)
            else:
                command = [values.fill(argument) for argument in program["command"]]
                command = [place.find(command[0]), *command[1:]]
        except (templates.BadValue, attempt.BadFile) as error:
            raise Told(INPUT_FAULT, str(error)) from None
        return command, {"shell": bool(program.get("shell")), "env": place.environment(environ, values["index"])}

    def _outputs(self, values: templates.Values) -> list[str]:
        try:
            return [attempt.inside(values.fill(text)) for text in self._program.get("outputs", ())]
        except (templates.BadValue, attempt.BadFile) as error:
            raise Told(INPUT_FAULT, f"outputs: {error}") from None

    # --- while ---

    def _execute(
        self, place: Attempt, command: Sequence[str] | str, options: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        strays.adopt()
        before = strays.children()
        try:
            with place.streams() as (stdin, stdout, stderr):
                process = subprocess.Popen(
                    command, cwd=place.files, stdin=stdin, stdout=stdout, stderr=stderr, restore_signals=True, **options
                )
        except FileNotFoundError:
            raise Told(self._lacking, f"there is no program {command[0]!r}") from None
        except OSError as error:
            if error.errno == attempt.TOO_LONG:
                raise Told(INPUT_FAULT, "the command and its environment are longer than the system allows") from None
            raise Told(self._lacking, f"{command[0]!r} can't be run: {error.strerror}") from None
        try:
            return _wait(process)
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
            strays.end(before)

    # --- after ---

    def _judge(self, code: int, place: Attempt, *, is_shell: bool) -> None:
        """Raise what an exit code that is none of success means."""
        if code in self._success:
            return
        if code in self._input_faults:
            raise self._fault(INPUT_FAULT, f"exit code {code}, which the job declares as a fault of its input", place)
        if is_shell and code in SHELL_NOT_RUN:
            raise Told(self._lacking, f"the shell could not run a command (exit code {code})", place.tail(TAIL_BYTES))
        raise self._fault(PROGRAM_FAILED, f"exit code {code}", place)

    @staticmethod
    def _fault(kind: str, what: str, place: Attempt) -> Told:
        tail = place.tail(TAIL_BYTES)
        last = "\n".join(tail.splitlines()[-SHOWN_LINES:])
        return Told(kind, f"{what}: {last}" if last else f"{what}; it wrote nothing", tail)

    @staticmethod
    def _environment(what: str, place: Attempt | None) -> Told:
        return Told(ENVIRONMENT_FAULT, what, "" if place is None else place.tail(TAIL_BYTES))


def _wait(process: "subprocess.Popen[bytes]") -> tuple[int, dict[str, Any]]:
    if not hasattr(os, "wait4"):
        return process.wait(), {}
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return process.returncode, {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 6),
        "peak_memory_bytes": usage.ru_maxrss * unit,
    }


def _executable_for(executables: Mapping[str, Any]) -> Any:
    return executables.get(platform_name()) if executables else None


def platform_name() -> str:
    """Return this system and its architecture, as `NodeInfo.platform` has them."""
    import platform

    system = {"darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    return f"{system}-{({'amd64': 'x86_64', 'aarch64': 'arm64'}).get(machine, machine)}"


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
