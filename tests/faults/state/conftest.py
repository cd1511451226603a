"""What a program did to its files, recorded by strace, and the files that a kill or a power cut would have left.

After a kill the operating system still has every write, so the files are those of a prefix of the recording. After a
power cut it has what was synced; of the rest any part: writes in any combination, the last of them torn, names of files
up to some instant. A name counts as synced only once its folder was, which is stricter than common filesystems.
"""

import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

CALLS = (
    "openat,lseek,write,pwrite64,ftruncate,fallocate,fdatasync,fsync,unlink,unlinkat,rename,renameat,renameat2,mkdir,"
    "mkdirat,rmdir"
)
UNTRACED = "writev,pwritev,pwritev2,copy_file_range,sendfile,link,linkat,symlink,creat,truncate"
SECTOR_BYTES = 512
ACKNOWLEDGED = b"acknowledged "

_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)(?:<([\\xa-f0-9]*)>)?")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>")


def _bytes(text):
    return bytes.fromhex(text.replace("\\x", ""))


def _whole(lines):
    """Put the halves of calls together that another thread's came between; a call counts when it has ended."""
    begun = {}
    for line in lines:
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>\n"):
            begun[thread] = line.removesuffix("<unfinished ...>\n").rstrip()
        elif " resumed>" in line:
            yield begun.pop(thread) + line.partition(" resumed>")[2]
        else:
            yield line


class Inode:
    """A file: its bytes, and those of them that are synced with the changes since."""

    def __init__(self):
        self.data, self.synced, self.pending = bytearray(), b"", []

    def change(self, offset, data):
        """Write `data`, or set the length to `offset` if that is None."""
        _apply(self.data, offset, data)
        self.pending.append((offset, data))

    def sync(self):
        self.synced, self.pending = bytes(self.data), []

    def after_kill(self):
        return bytes(self.data)

    def after_power_cut(self, chance):
        found = bytearray(self.synced)
        keep = chance.choice([0.0, 0.5, 1.0])
        kept = [change for change in self.pending if chance.random() < keep]
        for number, (offset, data) in enumerate(kept):
            if number == len(kept) - 1 and data:
                data = data[: chance.randrange(0, len(data) + SECTOR_BYTES, SECTOR_BYTES)]
            _apply(found, offset, data)
        return bytes(found)


def _apply(data, offset, change):
    if change is None:
        del data[offset:]
        data.extend(bytes(offset - len(data)))
        return
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(change)] = change


class Folder:
    """A folder: its names, and those of them that are synced with the changes since."""

    def __init__(self):
        self.names, self.synced, self.pending = {}, {}, []

    def set(self, name, node):
        if node is None:
            self.names.pop(name, None)
        else:
            self.names[name] = node
        self.pending.append((name, node))

    def sync(self):
        self.synced, self.pending = dict(self.names), []

    def after_kill(self):
        return self.names

    def after_power_cut(self, chance):
        found = dict(self.synced)
        for name, node in self.pending[
            : chance.choice([0, len(self.pending), chance.randrange(len(self.pending) + 1)])
        ]:
            if node is None:
                found.pop(name, None)
            else:
                found[name] = node
        return found


class Recording:
    """The calls of one program, to be played up to any of them."""

    def __init__(self, root, lines):
        self._root = root
        self.calls = [call for line in _whole(lines) if (call := self._parse(line)) is not None]
        self.syncs = [at for at, call in enumerate(self.calls) if call[0] in {"fsync", "fdatasync"}]

    def _parse(self, line):
        match = _CALL.match(line)
        if match is None or int(match[3]) < 0:
            return None
        name, arguments, result = match[1], match[2], int(match[3])
        assert name not in UNTRACED.split(","), f"the recording does not know {line[:200]}"
        if name == "openat":
            path = self._inside(_bytes(match[4] or ""))
            if path is None or not ("O_RDWR" in arguments or "O_WRONLY" in arguments):
                return None
            return name, path, arguments, result
        if name in {"mkdir", "mkdirat", "unlink", "unlinkat", "rename", "renameat", "renameat2", "rmdir"}:
            paths = [self._inside(_bytes(text)) for text in _TEXT.findall(arguments)]
            return None if None in paths else (name.removesuffix("2").removesuffix("at"), *paths)
        handle = _HANDLE.match(arguments)
        path = self._inside(_bytes(handle[2]))
        if name == "write" and path is None:
            data = _bytes(_TEXT.search(arguments)[1])
            return ("acknowledged", data.removeprefix(ACKNOWLEDGED).strip()) if data.startswith(ACKNOWLEDGED) else None
        if path is None:
            return None
        number = int(handle[1])
        if name in {"write", "pwrite64"}:
            data = _bytes(_TEXT.search(arguments)[1])[:result]
            offset = int(arguments.rsplit(",", 1)[1]) if name == "pwrite64" else None
            return "write", path, number, offset, data
        if name == "lseek":
            return name, path, number, result
        if name == "ftruncate":
            return name, path, int(arguments.rsplit(",", 1)[1])
        assert name in {"fsync", "fdatasync"}, line[:200]
        return name, path

    def _inside(self, path):
        """Return the parts of a path below the root; None for others and for what is not kept."""
        text = path.decode(errors="replace")
        prefix = f"{self._root}/"
        if text == str(self._root):
            return ()
        if not text.startswith(prefix) or text.endswith("-shm"):  # the index of the log is memory, rebuilt at opening
            return None
        return tuple(text.removeprefix(prefix).split("/"))

    def play(self, count):
        """Return the tree after the first `count` calls, and what had been acknowledged."""
        root, positions, acknowledged = Folder(), {}, []

        def find(path):
            node = root
            for part in path:
                node = node.names[part]
            return node

        for call in self.calls[:count]:
            match call:
                case ("openat", path, flags, number):
                    folder = find(path[:-1])
                    if path[-1] not in folder.names:
                        folder.set(path[-1], Inode())
                    elif "O_TRUNC" in flags:
                        folder.names[path[-1]].change(0, None)
                    positions[number] = "end" if "O_APPEND" in flags else 0
                case ("lseek", _, number, offset):
                    if positions.get(number) != "end":
                        positions[number] = offset
                case ("write", path, number, offset, data):
                    inode = find(path)
                    if offset is None:
                        offset = len(inode.data) if positions[number] == "end" else positions[number]
                        if positions[number] != "end":
                            positions[number] = offset + len(data)
                    inode.change(offset, data)
                case ("ftruncate", path, size):
                    find(path).change(size, None)
                case ("fsync" | "fdatasync", path):
                    find(path).sync()
                case ("mkdir", path):
                    find(path[:-1]).set(path[-1], Folder())
                case ("unlink" | "rmdir", path):
                    find(path[:-1]).set(path[-1], None)
                case ("rename", source, target):
                    node = find(source)
                    find(source[:-1]).set(source[-1], None)
                    find(target[:-1]).set(target[-1], node)
                case ("acknowledged", what):
                    acknowledged.append(what.decode())
        return root, acknowledged

    def after_kill(self, count, target):
        """Write the files as a kill before call `count` leaves them; return what had been acknowledged."""
        return self._write(count, target, lambda node: node.after_kill())

    def after_power_cut(self, count, target, chance):
        """Write files as a power cut before call `count` might leave them; return what had been acknowledged."""
        return self._write(count, target, lambda node: node.after_power_cut(chance))

    def _write(self, count, target, left):
        root, acknowledged = self.play(count)

        def write(folder, path):
            path.mkdir()
            for name, node in left(folder).items():
                if isinstance(node, Folder):
                    write(node, path / name)
                else:
                    (path / name).write_bytes(left(node))

        write(root, target)
        return acknowledged

    def boundaries(self, seed, others):
        """Return where each sync begins and where it has ended, and some other calls."""
        found = {at + near for at in self.syncs for near in (0, 1)}
        found.update(random.Random(seed).sample(range(len(self.calls)), min(others, len(self.calls))))
        return sorted(at for at in found if 0 <= at <= len(self.calls))


@pytest.fixture
def scratch(tmp_path):
    """A folder in memory where there is one: hundreds of databases are opened, and nothing depends on their syncs."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Run a program under strace on an empty folder, its last argument, and return the recording."""

    def run(program, *arguments):
        base = tmp_path_factory.mktemp("recorded").resolve()
        folder, trace = base / "files", base / "trace"
        folder.mkdir()
        command = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS},{UNTRACED}", "-o", trace]
        done = subprocess.run(
            [*command, sys.executable, "-c", program, *arguments, folder], capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with trace.open() as lines:
            return Recording(folder, [line for line in lines if "exited" not in line])

    return run
