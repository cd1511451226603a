"""Control groups of Linux, version 2 or 1, where the agent may make some: one per slot, below the agent's own group.

So whatever limits the agent itself limits its slots too. Of version 2 the agent has to be alone in its group, as under
`systemd-run --user --scope -p Delegate=yes`: it moves to a group of its own beside those of its slots then, as the kernel
demands.
"""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from fallow.model.containment import Limits

Controller = Literal["memory", "pids", "cpu"]
CONTROLLERS: tuple[Controller, ...] = ("memory", "pids", "cpu")
PREFIX = "fallow"
AGENT_GROUP = "fallow-agent"
PERIOD_US = 100_000
"""Over which a share of processors is counted: the kernel's own default."""
JOIN = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 > "$1/cgroup.procs" || exit 126; shift; n=$((n-1)); done; exec "$@"'
)
"""A shell's program that joins $1 groups and becomes the command after them: nothing of it runs outside of them."""


class Cgroups:
    """The groups below the agent's own. Its methods block shortly."""

    def __init__(self, version: int, parents: Mapping[Controller, Path], name: str) -> None:
        """parents: where each controller's groups are made. name: begins the names of this agent's groups."""
        self.version = version
        self.parents = parents
        self._name = name

    def open(self) -> None:
        """Remove what agents that were killed have left: our predecessor's with what runs in them, of others what is empty."""
        for parent in set(self.parents.values()):
            for left in parent.glob(f"{PREFIX}-*-*-*"):
                _, _, pid, _ = left.name.split("-")
                if left.name.startswith(f"{self._name}-"):
                    Group(self.version, {"memory": left}).remove()
                elif pid.isdigit() and not Path("/proc", pid).exists():
                    with contextlib.suppress(OSError):
                        left.rmdir()

    def make(self, number: int, limits: Limits, own_processes: int) -> "Group":
        """Make a slot's group; raises OSError. own_processes: what it starts itself, which don't count."""
        folders = {
            controller: parent / f"{self._name}-{os.getpid()}-{number}" for controller, parent in self.parents.items()
        }
        group = Group(self.version, folders)
        try:
            for folder in set(folders.values()):
                folder.mkdir()
            group.limit(limits, own_processes)
        except OSError:
            group.remove()
            raise
        return group


class Group:
    """One slot's group: a folder per controller, or one for all."""

    def __init__(self, version: int, folders: Mapping[Controller, Path]) -> None:
        self._version = version
        self._folders = folders

    @property
    def controls(self) -> frozenset[Controller]:
        return frozenset(self._folders)

    def limit(self, limits: Limits, own_processes: int) -> None:
        memory, pids, cpu = (self._folders.get(controller) for controller in CONTROLLERS)
        if memory is not None and limits.memory_bytes is not None:
            size = str(limits.memory_bytes)
            if self._version == 2:
                (memory / "memory.max").write_text(size)
                _write_if_there(memory / "memory.swap.max", "0")
            else:
                (memory / "memory.limit_in_bytes").write_text(size)
                _write_if_there(memory / "memory.memsw.limit_in_bytes", size)
        if pids is not None and limits.processes is not None:
            (pids / "pids.max").write_text(str(limits.processes + own_processes))
        if cpu is not None and limits.cpus is not None:
            quota = max(1000, int(limits.cpus * PERIOD_US))  # the kernel takes no less
            if self._version == 2:
                (cpu / "cpu.max").write_text(f"{quota} {PERIOD_US}")
            else:
                (cpu / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (cpu / "cpu.cfs_quota_us").write_text(str(quota))

    def prefix(self) -> Sequence[str]:
        """Return what to put before a command so that it runs in the group from its first instruction on."""
        folders = sorted({str(folder) for folder in self._folders.values()})
        return ("/bin/sh", "-c", JOIN, "sh", str(len(folders)), *folders)

    # --- what has happened ---

    def peak_memory_bytes(self) -> int | None:
        """Return the most memory that all its processes had together; None if that is not known."""
        name = "memory.peak" if self._version == 2 else "memory.max_usage_in_bytes"
        return _number(self._folders.get("memory"), name)

    def killed_for_memory(self) -> bool:
        """Whether the kernel has killed a process of it for want of memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        return _field(self._folders.get("memory"), name, "oom_kill") > 0

    def refused_processes(self) -> bool:
        """Whether the kernel has refused it a process."""
        return _field(self._folders.get("pids"), "pids.events", "max") > 0

    def processes(self) -> list[int]:
        for folder in self._folders.values():
            with contextlib.suppress(OSError, ValueError):
                return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        return []

    # --- its end ---

    def remove(self) -> bool:
        """Kill what is in it and remove it; return whether it is gone: processes need a moment to die."""
        if not self._kill_at_once():
            for pid in self.processes():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        for folder in set(self._folders.values()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def _kill_at_once(self) -> bool:
        """Kill all that is in it, however fast it forks: version 2, from Linux 5.14 on."""
        if self._version != 2:
            return False
        try:
            for folder in set(self._folders.values()):
                _write_if_there(folder / "cgroup.kill", "1")
                if not (folder / "cgroup.kill").exists():
                    return False
        except OSError:
            return False
        return True


def find(name: str, *, may_move: bool) -> tuple[Cgroups | None, str]:
    """Look for groups that this process may make; return them, and in words what limits are enforced with.

    may_move: whether this process may be moved into a group of its own, if it is alone in its group.
    """
    mounts = _mounts()
    if mounts is None:
        return None, "this system has no control groups"
    unified, split = mounts
    own = _own_paths()
    parents: dict[Controller, Path] = {}
    for controller, mount in split.items():
        folder = Path(f"{mount}{own.get(controller, '/')}")
        if os.access(folder, os.W_OK):
            parents[controller] = folder
    if parents:
        return Cgroups(1, parents, name), f"control groups (version 1: {', '.join(parents)})"
    if unified is None:
        return None, "the agent may not make control groups here"
    folder = Path(f"{unified}{own.get('', '/')}")
    if folder.name == AGENT_GROUP:  # an earlier agent in this process, or the parent of this one, has moved there
        folder = folder.parent
    try:
        enabled = _delegated(folder, may_move=may_move)
    except OSError as error:
        return None, (
            f"the agent may not make control groups here ({error.strerror or error}); it may where it is started by"
            " systemd-run --user --scope -p Delegate=yes"
        )
    if not enabled:
        return None, "the agent's control group has no controllers"
    return Cgroups(2, dict.fromkeys(enabled, folder), name), f"control groups (version 2: {', '.join(enabled)})"


def _delegated(folder: Path, *, may_move: bool) -> list[Controller]:
    """Return the controllers that groups below `folder` have, after enabling them; raises OSError if that may not be."""
    present = (folder / "cgroup.controllers").read_text().split()
    wanted = [controller for controller in CONTROLLERS if controller in present]
    control = folder / "cgroup.subtree_control"
    missing = [controller for controller in wanted if controller not in control.read_text().split()]
    if missing:
        inside = {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
        if inside == {os.getpid()} and may_move:
            (folder / AGENT_GROUP).mkdir(exist_ok=True)
            (folder / AGENT_GROUP / "cgroup.procs").write_text("0")
        control.write_text(" ".join(f"+{controller}" for controller in missing))
    if wanted and not os.access(folder, os.W_OK):
        raise PermissionError("it belongs to another user")
    return wanted


def _mounts() -> tuple[Path | None, dict[Controller, Path]] | None:
    """Return where version 2 and each controller of version 1 are mounted."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return None
    unified: Path | None = None
    split: dict[Controller, Path] = {}
    for line in lines:
        _, place, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            unified = Path(place)
        elif kind == "cgroup":
            split.update({each: Path(place) for each in CONTROLLERS if each in options.split(",")})
    return unified, split


def _own_paths() -> dict[str, str]:
    """Return this process's group per controller of version 1, and under "" that of version 2."""
    out = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        out.update(dict.fromkeys(controllers.split(","), path.rstrip("/") or "/"))
    return out


def _write_if_there(path: Path, text: str) -> None:
    if path.exists():
        path.write_text(text)


def _number(folder: Path | None, name: str) -> int | None:
    if folder is None:
        return None
    try:
        return int((folder / name).read_text())
    except (OSError, ValueError):
        return None


def _field(folder: Path | None, name: str, key: str) -> int:
    if folder is not None:
        with contextlib.suppress(OSError, ValueError):
            for line in (folder / name).read_text().splitlines():
                word, _, value = line.partition(" ")
                if word == key:
                    return int(value)
    return 0
