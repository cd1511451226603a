"""Proportional set size (PSS): memory that is shared counts in parts, so that the sum over processes is true."""

import psutil


def pss_bytes(pid: int, *, tree: bool = False) -> float:
    """Return the PSS of a process, or of it and all its descendants; where the system has none, what is resident."""
    top = psutil.Process(pid)
    found = 0
    for process in (top, *top.children(recursive=True)) if tree else (top,):
        try:
            found += getattr(process.memory_full_info(), "pss", process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return float(found)
