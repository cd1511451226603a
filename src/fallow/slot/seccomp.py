"""Refuses system calls that tasks have no use for, to this process and all that it will start: a filter that the kernel runs.

Refused is what looks into other processes, mounts, makes namespaces, loads code into the kernel, or has a long history of flaws;
and, with the network off, every socket but a unix socket. Source: linux/seccomp.h, linux/filter.h, and the tables of system
calls of Linux 6.18.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Sequence

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the tables, and number, of each architecture that is known here."""
REFUSED = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "userfaultfd": (323, 282),
}
CLONE, UNSHARE, CLONE3 = (56, 220), (272, 97), (435, 435)
NAMESPACES = 0x7E020000
"""Flags of the first two that make a namespace. Those of the third lie in memory, so it is "not there": libraries take the first."""
SOCKETS = ((41, 198), (53, 199))
"""socket and socketpair."""
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
X32 = 0x40000000
"""A bit of the numbers of x86-64's other table of system calls, which is closed as a whole."""

NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16
"""Where the call's number, its architecture and its first argument lie in what the filter sees."""
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

Step = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def obstacle() -> str | None:
    """Return why system calls can't be refused here; None if they can."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        return f"the system calls of {machine} are not known"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0)  # no program: looked at only where there are filters
    return None if ctypes.get_errno() == errno.EFAULT else "this kernel has no filters of system calls"


def refuse(*, network: bool) -> None:
    """Refuse, for ever, what is to be refused; raises OSError. network: whether sockets may reach it.

    The process must have given up gaining privileges.
    """
    column, architecture = ARCHITECTURES[os.uname().machine]
    steps = _steps(column, architecture, (UNIX, INET, INET6, NETLINK) if network else (UNIX,))
    program = _Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _steps(column: int, architecture: int, families: Sequence[int]) -> list[Step]:
    steps: list[Step] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        _refusal(errno.ENOSYS),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        _refusal(errno.ENOSYS),
        (EQUAL, 0, 1, CLONE3[column]),
        _refusal(errno.ENOSYS),
    ]
    for numbers in REFUSED.values():
        steps += [(EQUAL, 0, 1, numbers[column]), _refusal(errno.EPERM)]
    for numbers in (CLONE, UNSHARE):
        flags = [(LOAD, 0, 0, ARGUMENT), (ANY_BIT, 0, 1, NAMESPACES), _refusal(errno.EPERM), (RETURN, 0, 0, ALLOW)]
        steps += [(EQUAL, 0, len(flags), numbers[column]), *flags]
    for numbers in SOCKETS:
        known = [(EQUAL, len(families) - i, 0, family) for i, family in enumerate(families)]
        family = [(LOAD, 0, 0, ARGUMENT), *known, _refusal(errno.EACCES), (RETURN, 0, 0, ALLOW)]
        steps += [(EQUAL, 0, len(family), numbers[column]), *family]
    return [*steps, (RETURN, 0, 0, ALLOW)]


def _refusal(number: int) -> Step:
    return (RETURN, 0, 0, REFUSE | number)
