"""Which sandboxes work on this computer: found out by running a real task in each.

The level that tasks have by default is proven before the node joins; the others are tried in the background, one by one.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fallow.model.ids import Digest, JobId
from fallow.model.job import JobSpec, Pages
from fallow.model.levels import LEVELS, Level, at_least
from fallow.model.page import InputPage
from fallow.node.node_job import NodeJob
from fallow.node.page_shelf import ShelvedPage
from fallow.node.sandbox import Sandbox
from fallow.node.settings import NodeSettings
from fallow.node.slot_kind import SlotKind
from fallow.node.slot_process import SlotProcess
from fallow.slot import seccomp

PROOF_S = 60.0
"""How long a task may take to run in a sandbox that works: far more than even a container needs on a busy computer."""


class Prober:
    """Tries sandboxes, and remembers what it found."""

    def __init__(self, settings: NodeSettings, open_sandbox: Callable[[Level], Sandbox]) -> None:
        self._settings = settings
        self._open = open_sandbox
        self._found: dict[Level, str | None] = {}

    @property
    def levels(self) -> tuple[Level, ...]:
        """Return the levels that work, of those that the owner allows."""
        return tuple(level for level in LEVELS if self._found.get(level, "") is None and self._is_allowed(level))

    def notes(self) -> dict[str, str]:
        """Say why the others don't, or how far one does."""
        notes = {}
        for level in LEVELS:
            if not self._is_allowed(level):
                notes[f"sandbox {level}"] = f"weaker than the owner allows: at least {self._settings.min_sandbox}"
            elif level not in self._found:
                notes[f"sandbox {level}"] = "not tried yet"
            elif (obstacle := self._found[level]) is not None:
                notes[f"sandbox {level}"] = obstacle
            elif level == "confined" and (reason := seccomp.obstacle()) is not None:
                notes[f"sandbox {level}"] = f"works, but tasks reach the network and can make any system call: {reason}"
        return notes

    def candidates(self) -> Sequence[Level]:
        """Return the levels that tasks may have by default, the one to try first in front."""
        if self._settings.sandbox is not None:
            return [self._settings.sandbox]
        levels: list[Level] = []
        if sys.platform == "linux":
            levels = ["bubblewrap", "confined"] if shutil.which("bwrap") is not None else ["confined"]
        return [level for level in (*levels, LEVELS[0]) if self._is_allowed(level)] or [self._settings.min_sandbox]

    def _is_allowed(self, level: Level) -> bool:
        return at_least(level, self._settings.min_sandbox)

    async def works(self, level: Level) -> bool:
        """Try a level, unless that was done."""
        if level not in self._found:
            self._found[level] = await self._try(level)
        return self._found[level] is None

    async def _try(self, level: Level) -> str | None:
        if level == LEVELS[0]:
            return None
        sandbox = self._open(level)
        obstacle = await sandbox.obstacle()
        if obstacle is not None:
            return obstacle
        proof = _Proof()
        try:
            return await asyncio.wait_for(proof.run(level, sandbox, self._settings), PROOF_S)
        except TimeoutError:
            return f"a task in it did not end within {PROOF_S:g} s"
        except OSError as error:
            return str(error)
        finally:
            proof.clear()


class _Proof:
    """One slot that runs one task."""

    def __init__(self) -> None:
        self._outcome: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._process: SlotProcess | None = None
        self._secret: Path
        self._job: NodeJob

    async def run(self, level: Level, sandbox: Sandbox, settings: NodeSettings) -> str | None:
        """Return why the task could not run, or did what it must not; None if all is well."""
        folder = settings.folder / "slots" / f"proof-{level}"
        kind = SlotKind(sandbox=level)
        self._secret = settings.folder / f"proof-{level}"
        self._secret.write_text("fallow.slot.proof:finds")
        spec = JobSpec(
            id=JobId(level),
            stages=("map",),
            function=Digest(level),
            function_name="proof",
            inputs=Pages(),
            codec="json",
        )
        self._job = NodeJob(1, spec, kind)
        self._job.prepare(self._secret, (), {})
        process = self._process = SlotProcess(self, 0, kind, folder)
        process.start(settings.python, sandbox, settings)
        return await self._outcome

    def clear(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process.clear()
            self._secret.unlink(missing_ok=True)

    def _tell(self, outcome: str | None) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    # --- what the slot says ---

    def slot_ready(self, process: SlotProcess) -> None:
        try:
            given = process.give(self._secret, None)
        except OSError as error:
            self._tell(f"the agent's folder can't hold links, by which slots are given files: {error}")
            return
        page = InputPage(self._job.spec.id, 0, 1, json.dumps([[str(self._secret), given]]).encode())
        parts = [
            self._job.load_message(process),
            self._job.page_message(ShelvedPage(1, page), None, {}, process),
            self._job.run_message(0, 1, 1, 1),
        ]
        process.write(b"".join(parts))

    def slot_done(self, process: SlotProcess, key: int, numbers: tuple[int, int, int, int], body: memoryview) -> None:
        told = bytes(body)
        if told == b"[[false,true]]":
            self._tell(None)
        elif told == b"[[false,false]]":
            self._tell("a task in it could not read what it was given")
        else:
            self._tell(f"a task in it could read the agent's files: {told!r:.500}")

    def slot_gave(self, process: SlotProcess, number: int, at: int, cut: int) -> None:
        pass

    def slot_printed(self, process: SlotProcess, entries: Sequence[tuple[int, bytes]]) -> None:
        pass

    def slot_saved(self, process: SlotProcess, index: int, path: Path) -> None:
        pass

    def slot_progressed(self, process: SlotProcess) -> None:
        pass

    def slot_faulty(self, process: SlotProcess) -> None:
        self._tell("what its slot wrote made no sense")

    def slot_died(self, process: SlotProcess, exit_code: int | None, signal_name: str | None) -> None:
        said = process.tail(-1).strip()[-500:]
        self._tell(said or f"its slot was ended by {signal_name or f'exit code {exit_code}'}")
