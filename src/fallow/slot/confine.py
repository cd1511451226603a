"""Confines this process, and all that it will start: to some folders, by Landlock's system calls; to no rights of root's, some
bounds, and the system calls that tasks need (fallow.slot.seccomp).

Source: linux/landlock.h and Documentation/userspace-api/landlock.rst of Linux 6.18 (version 7 of its interface).
"""

import contextlib
import ctypes
import json
import os
import stat
import struct
import sys

from fallow.slot import seccomp

VARIABLE = "FALLOW_CONFINE"
"""The environment variable that says to what: {"read": [path, …], "write": [path, …], "network": bool, "file_bytes": int or null}."""

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls: the same numbers on all architectures but Alpha."""
VERSION = 1
"""Flag of the first: tell the version of the interface."""
PATH_BENEATH = 1
"""Kind of rule: what is at a path and below."""
PR_SET_NO_NEW_PRIVS = 38

READ = 0b1101
"""Execute, read files, read folders."""
FILE_ONLY = 0b1100_0000_0000_0111
"""The rights that a rule on a file may give: execute, write, read, truncate, ioctl."""
RIGHTS = (0, 13, 14, 15, 15, 16)
"""How many rights on files each version knows: all since the first, then moving between folders, truncating, and ioctl of
devices."""
OPEN_FILES = 1 << 16
"""Per process: what all slots of a computer open is the kernel's memory."""
CAPABILITY_VERSION = 0x20080522
SCOPES = 0b11
"""From version 6 on: no abstract unix socket, and no signal, leaves this domain."""


class _Ruleset(ctypes.Structure):
    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def landlock_version() -> int:
    """Return the version of Landlock's interface that this kernel has; 0 for none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)))


def confine_by_environment() -> None:
    """Do what the environment variable says, if it is there; raises OSError if that can't be done."""
    text = os.environ.pop(VARIABLE, None)
    if text is not None:
        rules = json.loads(text)
        confine(rules["read"], rules["write"])
        bound(rules["file_bytes"])
        drop_rights()
        if seccomp.obstacle() is None:
            seccomp.refuse(network=rules["network"])


def confine(readable: list[str], writable: list[str]) -> None:
    """Allow this process these paths only, for ever. Those that are not there are left out."""
    version = landlock_version()
    if version < 1:
        raise OSError("this kernel has no Landlock")
    libc = _libc()
    rights = (1 << RIGHTS[min(version, len(RIGHTS) - 1)]) - 1
    ruleset = _Ruleset(rights, 0, SCOPES if version >= 6 else 0)
    size = ctypes.sizeof(_Ruleset) if version >= 6 else 8  # older kernels know the first field only
    handle = _check(libc.syscall(CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0))
    try:
        for path in readable:
            _allow(libc, handle, path, READ & rights)
        for path in writable:
            _allow(libc, handle, path, rights)
        _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _check(libc.syscall(RESTRICT_SELF, handle, 0))
    finally:
        os.close(handle)


def bound(file_bytes: int | None) -> None:
    """Leave no dumps of memory, and not more open files or larger ones than a task may need. file_bytes: None for any size."""
    import resource

    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, file_bytes),
    ):
        if most is not None:
            resource.setrlimit(what, tuple(most if old < 0 else min(old, most) for old in resource.getrlimit(what)))  # type: ignore[arg-type]


def drop_rights() -> None:
    """Give up what root may do, if this is root; who owns which file stays as it is."""
    libc = _libc()
    _check(libc.capset(struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24)))


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(place).st_mode):
                rights &= FILE_ONLY
            rule = _PathBeneath(rights, place)
            _check(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0))
        finally:
            os.close(place)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"confining: {os.strerror(number)}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
