"""A checkpoint folder as one file and back: what counts of it, whether it stands still, packing, unpacking.

Only folders and regular files count. Links and devices are left out, so that neither packing nor unpacking leads anywhere else;
so are files whose names end in ".tmp", which are being written.
"""

import itertools
import os
import shutil
import stat
from typing import IO

from fallow.slot.removing import remove_tree

LEFT_OUT = ".tmp"
MAX_FILES = 10_000
"""Files and folders of one checkpoint: enough for one file per process of a large simulation."""
MAX_DEPTH = 100
"""Folders in folders."""
MAX_BYTES = 1 << 30
"""As `fallow.model.lease.MAX_CHECKPOINT_BYTES`, which the hub holds to; a slot imports nothing of the model."""

_removed = itertools.count()

Look = dict[str, tuple[int, ...]]
"""What lies in the folder, by path: of a file size, times, inode and mode; of a folder, whose path ends in "/", nothing."""


_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Unfit(Exception):
    """The folder can't be a checkpoint, or the file is none."""


def look(folder: str) -> Look:
    """Return what lies in the folder; raises Unfit if that is too much."""
    found: Look = {}
    left, size_bytes = [""], 0
    while left:
        prefix = left.pop()
        if prefix.count("/") > MAX_DEPTH:
            raise Unfit(f"it holds folders in folders, over {MAX_DEPTH} deep")
        try:
            with os.scandir(os.path.join(folder, prefix)) as entries:
                for entry in entries:
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(facts.st_mode):
                        found[f"{prefix}{entry.name}/"] = ()
                        left.append(f"{prefix}{entry.name}/")
                    elif stat.S_ISREG(facts.st_mode) and not entry.name.endswith(LEFT_OUT):
                        found[prefix + entry.name] = _facts(facts)
                        size_bytes += facts.st_size
                    _check(len(found), size_bytes)
        except FileNotFoundError:
            continue  # removed meanwhile: the next look will differ
        except OSError as error:
            raise Unfit(f"it can't be read: {error}") from error
    return found


def changes(before: Look, after: Look) -> list[str]:
    """Return what differs between two looks."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


class Held:
    """The one file that changes in a folder, kept open: once another has taken its place it stands still for ever.

    So a folder whose state is one file that is renamed into place is known as it was when it was looked at, however often that happens.
    """

    def __init__(self, folder: str, seen: Look, name: str) -> None:
        """Open the file as it was seen; raises OSError if it is another by now."""
        self.seen = seen
        self.name = name
        self._handle = os.open(os.path.join(folder, name), _READ)
        facts = os.fstat(self._handle)
        if _facts(facts) != seen[name]:
            self.close()
            raise OSError(f"{name!r} has changed")

    def is_whole(self, now: Look) -> bool:
        """Whether nothing but the file's place has changed since it was seen: it was not written to, nor any other file."""
        facts = os.fstat(self._handle)
        size, mtime = self.seen[self.name][:2]
        return (facts.st_size, facts.st_mtime_ns) == (size, mtime) and changes(self.seen, now) == [self.name]

    def open(self) -> IO[bytes]:
        file = os.fdopen(os.dup(self._handle), "rb")
        file.seek(0)
        return file

    def close(self) -> None:
        os.close(self._handle)


def pack(folder: str, seen: Look, path: str, held: Held | None = None) -> None:
    """Write what `look` saw into a new file; raises OSError if it is not there any more as it was. held: a file that need not be."""
    import tarfile  # only where there are checkpoints: it takes 10 ms

    with tarfile.open(path, "x", format=tarfile.PAX_FORMAT) as archive:
        for name, facts in sorted(seen.items()):
            member = tarfile.TarInfo(name.rstrip("/"))
            if not facts:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
                continue
            member.size, member.mtime, member.mode = facts[0], facts[1] // 10**9, stat.S_IMODE(facts[4])
            with held.open() if held is not None and name == held.name else _open(folder, name) as file:
                archive.addfile(member, file)


def _open(folder: str, name: str) -> IO[bytes]:
    return os.fdopen(os.open(os.path.join(folder, name), _READ), "rb")


def unpack(path: str, folder: str) -> None:
    """Lay out a packed checkpoint in an empty folder; raises Unfit, OSError."""
    import tarfile

    count = size_bytes = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                count, size_bytes = count + 1, size_bytes + member.size
                _check(count, size_bytes)
                place = os.path.join(folder, *_parts(member.name))
                source = archive.extractfile(member) if member.isreg() else None
                if member.isdir():
                    os.mkdir(place)
                elif source is None:
                    raise Unfit(f"it holds {member.name!r}, which is neither file nor folder")
                else:
                    _write(source, place)
                    os.chmod(place, stat.S_IMODE(member.mode) | stat.S_IRUSR | stat.S_IWUSR)
                    os.utime(place, (member.mtime, member.mtime))
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise Unfit(f"it is damaged: {error}") from error


def _facts(facts: os.stat_result) -> tuple[int, ...]:
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_mode)


def _write(source: IO[bytes], place: str) -> None:
    with open(place, "xb") as file:
        shutil.copyfileobj(source, file)


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if (
        len(parts) > MAX_DEPTH + 1
        or any(part in {"", ".", ".."} for part in parts)
        or os.path.isabs(name)
        or "\\" in name
        or ":" in parts[0]
    ):
        raise Unfit(f"it holds {name!r}, which lies outside of it")
    return parts


def _check(count: int, size_bytes: int) -> None:
    if count > MAX_FILES:
        raise Unfit(f"it holds over {MAX_FILES:,} files and folders")
    if size_bytes > MAX_BYTES:
        raise Unfit(f"it is larger than {MAX_BYTES >> 20} MiB")


def remove(folder: str) -> None:
    """Take a folder away and remove it."""
    aside = f"{folder}-{next(_removed)}"
    os.rename(folder, aside)
    if os.path.islink(aside) or not os.path.isdir(aside):
        os.unlink(aside)
    else:
        remove_tree(aside)


def make_empty(folder: str) -> None:
    """Make a new folder in the place of whatever is there."""
    if os.path.lexists(folder):
        remove(folder)
    os.makedirs(folder)
