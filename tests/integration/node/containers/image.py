"""The tar file of a root filesystem with nothing but a Python: this interpreter, its library and what it links to."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

LEFT_OUT = {"__pycache__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "tkinter"}


def write_image(path):
    base = Path(sys.base_prefix)
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(base), "base": str(base)}))
    program = Path(os.path.realpath(sys.executable))
    files = {program, *(each for each in library.rglob("*.so") if not _is_left_out(str(each)))}
    with tarfile.open(path, "w", dereference=True) as tar:
        tar.add(library, filter=lambda member: None if _is_left_out(member.name) else member)
        for each in sorted(files | _linked(files)):
            if library not in each.parents:
                tar.add(each)
        for place in ("usr/bin/python3", f"usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
            if f"/{place}" != str(program):
                link = tarfile.TarInfo(place)
                link.type, link.linkname = tarfile.SYMTYPE, str(program)
                tar.addfile(link)


def _is_left_out(name):
    parts = name.split("/")
    is_unused = parts[-1].endswith(".a") or parts[-1].startswith(("_tkinter", "_test")) or "/config-" in name
    return is_unused or bool(LEFT_OUT.intersection(parts))


def _linked(files):
    """Return the libraries, loader included, that files need."""
    said = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    return {Path(each) for each in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, flags=re.MULTILINE)}
