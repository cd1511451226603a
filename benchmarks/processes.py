"""Trees of processes: what they weigh, and that none gets lost."""

import psutil


def pss_bytes(pid: int, *, tree: bool = False) -> float:
    """Return the proportional set size of a process, or of it and all its descendants: shared memory counts in parts.

    Where the system knows no such size, it is what is resident.
    """
    top = psutil.Process(pid)
    found = 0
    for process in (top, *top.children(recursive=True)) if tree else (top,):
        try:
            found += getattr(process.memory_full_info(), "pss", process.memory_info().rss)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return float(found)


def kill(processes: list[psutil.Process], limit_s: float) -> None:
    """Kill processes by identity: a number that another process has by now is left alone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, limit_s)
