"""What a task may try, as functions that run in a slot: each returns what it got away with, so `[]` is good.

They use the standard library only and are pickled by value: nothing of the tests is there where they run.
"""


def read(paths):
    """Read files, list folders."""
    import os

    got = []
    for path in paths:
        for attempt in (os.listdir, lambda name: open(name, "rb").read(), lambda name: os.open(name, os.O_RDONLY)):
            try:
                got.append((path, repr(attempt(path))[:200]))
            except OSError:
                pass
    return got


def find_bytes(text, folder):
    """Look for a text in all files below the agent's folder, and wherever else this process's files lead but to the
    interpreter's own, of which there may be gigabytes.
    """
    import os
    import sys

    got = []
    data = text.encode()
    others = [path for path in sys.path if not path.startswith((sys.prefix, sys.base_prefix))]
    for start in (folder, os.getcwd(), os.path.join(os.getcwd(), ".."), *others):
        for place, _, names in os.walk(start):
            for name in names:
                path = os.path.join(place, name)
                try:
                    if os.path.isfile(path) and data in open(path, "rb").read(10_000_000):
                        got.append(path)
                except OSError:
                    pass
    return got


def walk_to_agent(folder):
    """Find the agent's files by going up from where the task works, and through every process's files."""
    import glob
    import os

    got = []
    for base in (
        "..",
        "../..",
        "../../..",
        "/proc/1/root",
        "/proc/1/cwd",
        "/proc/self/root",
        "/proc/*/root",
        "/proc/*/cwd",
    ):
        for name in ("node-id", "spool", "lock", "pids", "token", folder.lstrip("/") + "/node-id"):
            got += [path for path in glob.glob(os.path.join(base, name)) if os.access(path, os.R_OK)]
    return got


def read_environment(words):
    """Look for words in the variables and command lines of all processes."""
    import glob
    import os

    got = [name for name, value in os.environ.items() for word in words if word in value or word in name]
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            data = open(path, "rb").read().decode("utf-8", "replace")
        except OSError:
            continue
        got += [(path, word) for word in words if word in data]
    return got


def see_processes(pids):
    """Look for processes of the computer, and send them signals."""
    import os

    got = []
    for pid in pids:
        if os.path.exists(f"/proc/{pid}/exe"):
            try:
                got.append((pid, os.readlink(f"/proc/{pid}/exe")))
            except OSError:
                pass
    for attempt in (os.kill, os.killpg):
        for pid in pids:
            try:
                attempt(pid, 0)
            except OSError:
                continue
            got.append((attempt.__name__, pid))
    return got


def count_processes():
    """Return how many processes the task sees."""
    import glob

    return len(glob.glob("/proc/[0-9]*"))


def signal_all():
    """Signal all that there is, and the own process group."""
    import os
    import signal

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for target in (-1, 0):
        try:
            os.kill(target, signal.SIGUSR1)
        except OSError:
            pass
    return "alive"


def write(paths):
    """Write files outside of the own folder."""
    import os

    got = []
    for path in paths:
        place = os.path.join(path, "written-by-a-task")
        try:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600))
            got.append(place)
        except OSError:
            pass
    return got


def change_files(paths):
    """Change, rename, link or delete files that are there."""
    import os

    got = []
    for path in paths:
        for what, attempt in (
            ("append", lambda name: os.close(os.open(name, os.O_WRONLY | os.O_APPEND))),
            ("truncate", lambda name: os.truncate(name, 1)),
            ("chmod", lambda name: os.chmod(name, 0o777)),
            ("touch", lambda name: os.utime(name)),
            ("rename", lambda name: os.rename(name, name + "-renamed")),
            ("unlink", os.unlink),
        ):
            try:
                attempt(path)
                got.append((what, path))
            except OSError:
                pass
    return got


def tamper_with_kernel():
    """Write kernel settings, make devices, mount, enter other namespaces."""
    import ctypes
    import os

    got = []
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/hostname",
    ):
        try:
            os.close(os.open(path, os.O_WRONLY))
            got.append(path)
        except OSError:
            pass
    libc = ctypes.CDLL(None, use_errno=True)
    folder = os.path.join(os.getcwd(), "mounted")
    os.makedirs(folder, exist_ok=True)
    if libc.mount(b"none", folder.encode(), b"tmpfs", 0, None) == 0:
        got.append("mount")
    if libc.unshare(0x10000000) == 0:
        got.append("a user namespace")
    try:
        os.mknod(os.path.join(folder, "device"), 0o020666, os.makedev(1, 1))
        got.append("a device")
    except OSError:
        pass
    try:
        os.chroot(folder)
        got.append("chroot")
    except OSError:
        pass
    return got


def call_kernel():
    """Make system calls that look into processes or change the system; return the names of those that were not refused."""
    import ctypes
    import errno
    import os
    import platform

    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    got = []
    for name, numbers in {
        "bpf": (321, 280),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "perf_event_open": (298, 241),
        "keyctl": (250, 219),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425),
        "kexec_load": (246, 104),
        "mount": (165, 40),
        "open_tree": (428, 428),
        "fsopen": (430, 430),
        "setns": (308, 268),
        "pidfd_getfd": (438, 438),
        "ptrace": (101, 117),
        "chroot": (161, 51),
        "sethostname": (170, 161),
    }.items():
        ctypes.set_errno(0)
        # all zeros: a new trace of this process by its parent, this process's own memory, the own keyring, …
        result = libc.syscall(ctypes.c_long(numbers[column]), *[zero] * 6)
        if result >= 0 or ctypes.get_errno() != errno.EPERM:
            got.append((name, result, errno.errorcode.get(ctypes.get_errno())))
    for flags in (0x10000000, 0x00020000, 0x40000000):
        pid = libc.syscall(ctypes.c_long((56, 220)[column]), ctypes.c_ulong(flags | 17), *[zero] * 5)
        if pid == 0:
            os._exit(0)
        if pid > 0:
            os.waitpid(pid, 0)
            got.append(("clone", flags))
        if libc.unshare(flags) == 0:
            got.append(("unshare", flags))
    return got


def open_sockets():
    """Return the kinds of sockets that can be had."""
    import socket

    got = []
    for family in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_ALG", "AF_VSOCK"):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
            try:
                socket.socket(getattr(socket, family), kind).close()
                got.append((family, kind.name))
            except OSError:
                pass
    return got


def send_datagram(address):
    """Send a datagram; return what comes back, or the error."""
    import socket

    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.sendto(b"out", tuple(address))
            return sock.recv(100)
    except OSError as error:
        return type(error).__name__


def limits_and_rights():
    """Return the limits of this process and its capabilities."""
    import resource

    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    names = ("CORE", "NOFILE", "FSIZE")
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names}
    return limits, int(status["CapEff"], 16) | int(status["CapPrm"], 16), status["NoNewPrivs"], status["Seccomp"]


def become_root_again():
    """Start programs that would have root's rights; return what they can do."""
    import subprocess

    script = "grep CapEff /proc/self/status"
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False).stdout.split()[-1]


def connect(addresses):
    """Reach what listens: (host, port) by TCP and UDP, text by a unix socket, in the abstract namespace if it begins with @."""
    import socket

    got = []
    for address in addresses:
        if isinstance(address, str):
            kinds = [(socket.AF_UNIX, socket.SOCK_STREAM)]
            target = "\0" + address[1:] if address.startswith("@") else address
        else:
            kinds, target = [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)], tuple(address)
        for family, kind in kinds:
            with socket.socket(family, kind) as sock:
                sock.settimeout(3)
                try:
                    sock.connect(target)
                    sock.send(b"out")
                    if kind == socket.SOCK_STREAM:
                        got.append((address, sock.recv(10)))
                except OSError:
                    pass
    return got


def outlive(marker, spin):
    """Start what is to go on after the task: forked twice, in sessions of their own, that ignores signals. Returns at once."""
    import os
    import signal
    import time

    for _ in range(3):
        if os.fork():
            continue
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        for fd in range(256):
            try:
                os.close(fd)
            except OSError:
                pass
        os.execvp("sh", ["sh", "-c", f"while :; do sleep {spin}; done # {marker}"])
    deadline = time.monotonic() + 20
    while sum(marker.encode() in _command(pid) for pid in os.listdir("/proc") if pid.isdigit()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return os.getpid()


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def outlive_and_die(marker, spin):
    import os

    outlive(marker, spin)
    os.kill(os.getpid(), 11)


def outlive_and_hang(marker, spin):
    import time

    outlive(marker, spin)
    time.sleep(600)


def use_memory(bytes_in_all, step=5_000_000):
    held = []
    for _ in range(bytes_in_all // step):
        held.append(bytearray(b"x" * step))
    return len(held)


def use_memory_slowly(bytes_in_all):
    """Take memory and keep it for whoever looks."""
    import time

    held = []
    for _ in range(bytes_in_all // 5_000_000):
        held.append(bytearray(b"x" * 5_000_000))
    time.sleep(600)


def use_memory_in_children(bytes_in_all, children):
    import os

    pids = []
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            use_memory(bytes_in_all // children)
            import time

            time.sleep(600)
        pids.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in pids]


def start_processes(count):
    """Fork children that wait."""
    import os
    import signal
    import time

    started = []
    try:
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
                os._exit(0)
            started.append(pid)
    except OSError:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    time.sleep(600)  # whoever watches sees them
    return len(started)


def fill_disk(bytes_in_all, names=("work-file", "/tmp/file", "/dev/shm/file")):
    """Write files wherever it is allowed, then go on."""
    import time

    for name in names:
        try:
            with open(name, "wb") as file:
                file.writelines(b"x" * 1_000_000 for _ in range(bytes_in_all // len(names) // 1_000_000))
        except PermissionError:
            pass
    time.sleep(600)


def fill_disk_of_its_slot(bytes_in_all):
    import os
    import sys

    slot = sys.modules["fallow.slot.main"]
    folders = [each._results_folder for each in __import__("gc").get_objects() if isinstance(each, slot.Slot)]
    fill_disk(bytes_in_all, [os.path.join(folders[0], "file")])


def burn(seconds):
    """Return the processor seconds that four busy processes got in so many seconds."""
    import os
    import time

    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
            os._exit(0)
        pids.append(pid)
    used = 0.0
    for pid in pids:
        _, _, usage = os.wait4(pid, 0)
        used += usage.ru_utime + usage.ru_stime
    return used


def litter():
    """Leave files wherever it is allowed; return where."""
    import os

    got = []
    for folder in (".", "/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), "/run", "/"):
        place = os.path.join(os.path.abspath(folder), "litter-of-a-task")
        try:
            os.mkdir(place)
            open(os.path.join(place, "file"), "w").close()
            os.chmod(place, 0)
            got.append(place)
        except OSError:
            pass
    return got


def look_for_litter():
    import glob

    return [
        path for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/") for path in glob.glob(f"{folder}/*litter*")
    ]


def where():
    import os

    return os.getcwd(), os.environ.get("HOME"), os.path.expanduser("~"), os.getpid()
