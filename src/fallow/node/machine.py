"""Facts about this computer, as its agent publishes them."""

import os
import platform as python_platform
import socket
import sys

import psutil

from fallow import __version__
from fallow.model.node import NodeInfo
from fallow.node.platform import ARCHITECTURES, SYSTEMS
from fallow.node.settings import NodeSettings


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory() -> int:
    """Return the computer's memory in bytes."""
    return int(psutil.virtual_memory().total)


def host_name() -> str:
    return socket.gethostname()


def describe(settings: NodeSettings, python: str, score: float = 1.0) -> NodeInfo:
    """Build what the node says of itself. python: the slots' minor version."""
    machine = python_platform.machine().lower()
    return NodeInfo(
        name=settings.name,
        cores=settings.cores,
        slots=settings.slots,
        memory_bytes=settings.memory_bytes,
        os=SYSTEMS.get(sys.platform, sys.platform),
        arch=ARCHITECTURES.get(machine, machine),
        pythons=(python,),
        tags=settings.tags,
        score=score,
        version=__version__,
    )
