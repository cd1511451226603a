"""One system at a time: brought up in its own process, asked for all its figures, and gone before the next begins."""

import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from select import select
from typing import Any, Self

import psutil
from plan import WORKLOAD_OF, Sizes
from processes import kill, pss_bytes

import fallow

FOLDER = Path(__file__).parent
START_LIMIT_S = 60.0
REQUEST_LIMIT_S = 180.0
STOP_LIMIT_S = 15.0


class Failed(Exception):
    """A system could not be started or did not answer."""


class Worker:
    """`with Worker("dask", python) as worker:` has the system up and warm; `seconds` is what that took."""

    def __init__(self, system: str, python: Path) -> None:
        self._command = [str(python), str(FOLDER / "worker.py"), system]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed with the worker
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FALLOW_")}
        path = f"{python.parent}{os.pathsep}{kept.get('PATH', '')}"
        self._environment = kept | {"PYTHONPATH": str(FOLDER), "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def __enter__(self) -> Self:
        began = time.perf_counter()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for the runner, which then ends this in order
        )
        try:
            self._answer(START_LIMIT_S)
        except BaseException:
            self._end()
            raise
        self.seconds = time.perf_counter() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def idle_bytes(self) -> float:
        self.ask("settle")
        return pss_bytes(self._process.pid, tree=True)

    def ask(self, workload: str, sizes: Sizes | None = None) -> dict[str, Any]:
        """Return the answer to one request: "figures" or "error"."""
        assert self._process.stdin is not None
        line = json.dumps({"workload": workload, "sizes": sizes or {}})
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise Failed(self._last_words()) from error
        return self._answer(REQUEST_LIMIT_S)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select([self._process.stdout], [], [], limit_s)[0]:
            raise Failed(f"no answer within {limit_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line for line in self._log.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it ended without a word"

    def _end(self) -> None:
        """Let it end by itself, then kill what is left of it: daemons too, as the runner adopts orphans."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(STOP_LIMIT_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        kill(psutil.Process().children(recursive=True), STOP_LIMIT_S)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


def measure(system: str, python: Path, requests: dict[str, Sizes]) -> dict[str, dict[str, Any]]:
    """Run a system once; return the answer to each request, "cold" and "idle" and "versions" among them.

    Raises Failed if it does not start. If it dies on the way, that request has the error, and those after it too.
    """
    answers: dict[str, dict[str, Any]] = {}
    with Worker(system, python) as worker:
        answers["cold"] = {"figures": {"seconds": worker.seconds}}
        answers["idle"] = {"figures": {"bytes": worker.idle_bytes()}}
        answers["versions"] = worker.ask("versions")
        try:
            for request, sizes in requests.items():
                began = time.perf_counter()
                answers[request] = worker.ask(WORKLOAD_OF.get(request, request), sizes)
                answers[request]["took_s"] = time.perf_counter() - began
        except Failed as error:
            failed = next(request for request in requests if request not in answers)
            answers[failed] = {"error": str(error)}
            for request in requests:
                answers.setdefault(request, {"error": f"not asked, as it failed in {failed}"})
    if "queued" not in answers and "urgent" in answers:
        answers["queued"] = answers["urgent"]
    return answers


def own_python() -> Path:
    return Path(sys.executable)


def compile_own_files() -> None:
    """Compile Fallow, as pip has compiled the peers: or each of its processes would do that at its start."""
    compileall.compile_dir(Path(fallow.__file__).parent, quiet=1)
