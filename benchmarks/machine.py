"""What the figures were measured on, for printing beside them."""

import os
import platform
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil

FOLDER = Path(__file__).parent


def describe() -> dict[str, str]:
    """Return machine and commit, in words; the systems tell their versions themselves."""
    return {
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": f"{sqlite3.sqlite_version}, synchronous=FULL",
        "commit": _commit(),
        "load": f"{os.getloadavg()[0]:.2f} before the start",
        "command": " ".join(sys.argv[1:]) or "no arguments",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    if not commit:
        return "unknown"
    return f"{commit} with changes" if git("status", "--porcelain", "--untracked-files=no") else commit
