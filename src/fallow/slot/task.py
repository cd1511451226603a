"""What a running task may ask of its slot: a folder for what it can go on from, and to tell how far it is.

The three functions are public, as `fallow.checkpoint` and so on. In a slot they act on the task that runs; in a process that a
task's program is, or has started, on the folder and file that its environment names; elsewhere on a folder beside the script.

A checkpoint is the state of the whole folder at one moment. Without a word of the task's: the folder looked the same for
half a second, and still did when it was packed, but for one file that others take the place of. A task that has called `save_checkpoint` says itself when it is whole, and
nothing is sent but then.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from math import isnan
from typing import TYPE_CHECKING

from fallow.slot.checkpoint import Held, Look, Unfit, changes, look, make_empty, pack, remove, unpack
from fallow.slot.protocol import PROGRESS, RUNNING, SAVED

if TYPE_CHECKING:
    from pathlib import Path

CHECKPOINT, TOLD = "FALLOW_CHECKPOINT", "FALLOW_PROGRESS"
"""Environment variables that name the folder, and the file in which a program says how far it is."""
LOCAL_FOLDER = "fallow-checkpoint"
"""Outside of a grid, in the working directory."""
LOOK_S = 0.5
"""How often folder and file are looked at; less often if a look takes long."""
LOOK_SHARE = 0.05
BUSY_LOOKS = 60
"""After so many looks in a row that found the folder changed, half a minute, the task's log says so."""
SHOWN_NAMES = 3
MESSAGE_CHARACTERS = 200
FILE_BYTES = 4096
"""Of the progress file, that are read."""

_desk: "TaskDesk | None" = None


def checkpoint() -> "Path":
    """Return a folder for the task's checkpoints: empty, or with what an earlier attempt had left when it was last sent.

    What lies in it is sent to the hub in the background. Outside of a grid: the folder of $FALLOW_CHECKPOINT, or
    `fallow-checkpoint` in the working directory. Raises RuntimeError if no task runs.
    """
    from pathlib import Path

    if _desk is not None:
        return Path(_desk.open())
    folder = Path(os.environ.get(CHECKPOINT) or LOCAL_FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_checkpoint() -> None:
    """Say that the folder holds a whole state now: it is sent, unless it was a moment ago (`checkpoint_s`).

    From then on nothing is sent that the task has not said to be whole.
    """
    if _desk is not None:
        _desk.save()


def progress(fraction: float | None = None, message: str = "") -> None:
    """Say how much of the task is done, from 0 to 1, and a line of words. As cheap as a store; shown every other second or so."""
    if fraction is not None:
        fraction = float(fraction)
        if isnan(fraction):
            raise ValueError("fraction is not a number")
        fraction = min(max(fraction, 0.0), 1.0)
    if _desk is not None:
        _desk.note_progress(fraction, message)
    elif path := os.environ.get(TOLD):
        partial = f"{path}.{os.getpid()}.tmp"
        with contextlib.suppress(OSError):
            with open(partial, "w", encoding="utf-8") as file:
                file.write(message if fraction is None else f"{fraction} {message}")
            os.replace(partial, path)


def variables() -> dict[str, str]:
    """Return what the environment of the running task's program says, having made the folder ready."""
    return {} if _desk is None else _desk.variables()


def install(desk: "TaskDesk") -> None:
    """Make this process a slot's."""
    global _desk  # noqa: PLW0603 -- tasks have no other way to their slot
    _desk = desk


class _Task:
    """A task that has asked for something."""

    def __init__(self, run: int, index: int, every_s: float) -> None:
        self.id = (run, index)
        self.index = index
        self.every_s = every_s
        self.is_saving = False
        self.is_explicit = False
        self.reads_file = False
        self.before: Look | None = None
        self.held: Held | None = None
        self.busy_looks = 0
        """Looks in a row that found the folder changed."""
        self.sent: Look = {}
        self.next_mono = 0.0
        self.problem = ""
        self.progress: tuple[float | None, str] = (None, "")
        self.told: tuple[float | None, str] = (None, "")

    def let_go(self) -> None:
        if self.held is not None:
            self.held.close()
            self.held = None


class TaskDesk:
    """One per slot. A thread looks at what tasks have left, while there is a task that has asked for that."""

    def __init__(self, folder: str, counter: memoryview, send: Callable[[int, int, bytes], None]) -> None:
        """folder: the slot's own. send: sends a message: kind, index, body."""
        self._folder = os.path.join(folder, "checkpoint")
        self._told_path = os.path.join(folder, "progress")
        self._packed_path = os.path.join(folder, "packed")
        self._counter = counter
        self._send = send
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._used = threading.Event()
        self._thread: threading.Thread | None = None
        self._left: dict[tuple[int, int], str] = {}
        self._packed = 0
        self._run = 0
        self._key = 0
        self._every_s: dict[int, float] = {}
        self._task: _Task | None = None

    # --- the slot's main thread ---

    def know(self, key: int, every_s: float) -> None:
        """A job's tasks are to be saved that often, at most."""
        self._every_s[key] = every_s

    def forget(self, key: int) -> None:
        self._every_s.pop(key, None)

    def leave(self, key: int, index: int, path: str) -> None:
        """A task that is to come has a checkpoint, in this file."""
        self._left[key, index] = path

    def begin(self, key: int) -> None:
        """A run of tasks of a job begins."""
        self._run += 1
        self._key = key

    def end(self) -> None:
        """The run is over."""
        self._run += 1
        if self._left:
            self._left.clear()
        if self._task is not None:
            self._used.clear()
            with self._lock:  # what is being packed may not be wanted any more, but is soon done
                self._drop()

    # --- tasks ---

    def open(self) -> str:
        """Return the folder of the task that runs, made ready when it asks for the first time."""
        if os.getpid() == self._pid:  # in a process that the task forked, the folder is the parent's affair
            task = self._current()
            if not task.is_saving:
                with self._lock:
                    if not task.is_saving:
                        self._make_ready(task)
        return self._folder

    def save(self) -> None:
        self.open()
        if os.getpid() != self._pid:
            return
        task = self._current()
        with self._lock:
            task.is_explicit = True
            if time.monotonic() >= task.next_mono:
                self._save(task, self._look(task))

    def note_progress(self, fraction: float | None, message: str) -> None:
        if os.getpid() == self._pid and self._counter[RUNNING]:
            self._current().progress = (fraction, _line(message))

    def variables(self) -> dict[str, str]:
        task = self._current()
        with contextlib.suppress(OSError):
            os.unlink(self._told_path)
        task.reads_file = True
        return {CHECKPOINT: self.open(), TOLD: self._told_path}

    def _current(self) -> _Task:
        index = self._counter[RUNNING] - 1
        if index < 0:
            raise RuntimeError("no task runs in this slot")
        task = self._task
        if task is None or task.id != (self._run, index):
            with self._lock:
                task = self._task  # another thread of it may have asked at the same moment
                if task is None or task.id != (self._run, index):
                    self._drop()
                    task = self._task = _Task(self._run, index, self._every_s.get(self._key, 0.0))
                    self._watch_it()
        return task

    def _drop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.let_go()
        if task is not None and task.is_saving:
            os.environ.pop(CHECKPOINT, None)
            with contextlib.suppress(OSError):  # the task has taken it away itself
                remove(self._folder)

    def _make_ready(self, task: _Task) -> None:
        make_empty(self._folder)
        path = self._left.pop((self._key, task.index), None)
        if path is not None:
            try:
                unpack(path, self._folder)
                task.sent = look(self._folder)
            except (Unfit, OSError) as error:
                make_empty(self._folder)
                _say(f"the checkpoint of task {task.index} can't be used, so it begins anew: {error}")
        os.environ[CHECKPOINT] = self._folder
        task.is_saving = True

    # --- the thread ---

    def _watch_it(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="fallow-task", daemon=True)
            self._thread.start()
        self._used.set()

    def _watch(self) -> None:
        pause_s = LOOK_S
        while True:
            self._used.wait()
            time.sleep(pause_s)
            began = time.monotonic()
            with self._lock:
                task = self._task
                if task is not None and self._is_current(task):
                    self._tell_progress(task)
                    if task.is_saving and not task.is_explicit and began >= task.next_mono:
                        self._look_and_save(task)
            pause_s = max(LOOK_S, (time.monotonic() - began) / LOOK_SHARE)

    def _is_current(self, task: _Task) -> bool:
        return task.id == (self._run, self._counter[RUNNING] - 1)

    def _look_and_save(self, task: _Task) -> None:
        seen, before = self._look(task), task.before
        task.before = seen
        if seen is None or before is None:
            return
        changed = changes(before, seen)
        if not changed:
            self._save(task, seen)
        elif task.held is not None and task.held.is_whole(seen):
            self._save(task, task.held.seen, task.held)
        else:
            self._note_busy(task, changed)
        task.let_go()
        is_due = (
            time.monotonic() >= task.next_mono and os.name == "posix"
        )  # elsewhere nothing takes an open file's place
        if is_due and len(changed) == 1 and before.get(changed[0]) and seen.get(changed[0]):
            with contextlib.suppress(OSError):
                task.held = Held(self._folder, seen, changed[0])

    def _note_busy(self, task: _Task, changed: list[str]) -> None:
        task.busy_looks += 1
        if task.busy_looks == BUSY_LOOKS:
            names = ", ".join(map(repr, changed[:SHOWN_NAMES])) + (" …" if len(changed) > SHOWN_NAMES else "")
            self._report(
                task,
                f"its folder never stands still ({names}); leave it alone for half a second now and then, or keep the state in one "
                "file that is written under a name that ends in .tmp and renamed",
            )

    def _look(self, task: _Task) -> Look | None:
        try:
            return look(self._folder)
        except Unfit as error:
            self._report(task, str(error))
            return None

    def _save(self, task: _Task, seen: Look | None, held: Held | None = None) -> None:
        """Pack what was seen and hand it over, unless it was sent before or has changed meanwhile. held: its one file that may."""
        if seen is None or seen == task.sent:
            return
        self._packed += 1
        path = f"{self._packed_path}-{self._packed}"
        try:
            pack(self._folder, seen, path, held)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(path)
            if self._look(task) == seen:
                self._report(task, str(error))
            return
        now = self._look(task)
        if now != seen and (now is None or held is None or not held.is_whole(now)):
            os.unlink(path)
            return
        self._send(SAVED, task.index, path.encode("utf-8", "surrogateescape"))
        task.sent = seen
        task.busy_looks = 0
        task.next_mono = time.monotonic() + task.every_s

    def _report(self, task: _Task, problem: str) -> None:
        if problem != task.problem:
            task.problem = problem
            _say(f"the checkpoint of task {task.index} is not sent: {problem}")

    def _tell_progress(self, task: _Task) -> None:
        if task.reads_file:
            task.progress = _read_told(self._told_path) or task.progress
        if task.progress != task.told:
            task.told = task.progress
            self._send(PROGRESS, task.index, json.dumps(task.progress).encode())


def _say(text: str) -> None:
    print(f"fallow: {text}", file=sys.stderr)  # noqa: T201 -- it is output of the task


def _line(message: object) -> str:
    return " ".join(str(message).split())[:MESSAGE_CHARACTERS]


def _read_told(path: str) -> tuple[float | None, str] | None:
    """Read a progress file: a fraction ("0.7") or percentage ("70 %"), then words, on the same line or the next."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            text = file.read(FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    return parse_progress(text)


def parse_progress(text: str) -> tuple[float | None, str] | None:
    """Return fraction and words; no fraction if the text does not begin with one; None if it is empty."""
    words = text.split()
    if not words:
        return None
    head, tail = words[0], words[1:]
    scale = 1.0
    if head.endswith("%"):
        head, scale = head[:-1], 100.0
    elif tail[:1] == ["%"]:
        tail, scale = tail[1:], 100.0
    try:
        fraction = float(head) / scale
    except ValueError:
        return None, _line(text)
    if not 0.0 <= fraction <= 1.0:
        return None, _line(text)
    return fraction, _line(" ".join(tail))
