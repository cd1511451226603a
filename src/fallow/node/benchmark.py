"""A short benchmark of the computer: one number, the speed of one core relative to a fixed reference machine.

Method: docs/benchmark-score.md. Run as a program of its own (this file, by path), so that the agent's loop and the tasks
are not disturbed more than by any other process; it needs the standard library only.
"""

import asyncio
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

REFERENCE_CPU_S = 0.0088
"""Seconds that one round of the CPU part takes on the reference machine (docs/benchmark-score.md)."""
REFERENCE_MEMORY_S = 0.0174
"""Seconds that one round of the memory part takes there."""
ROUNDS = 5
"""The best of so many counts: interruptions only ever make a round longer."""
LIMIT_S = 20.0
"""A computer that needs longer is not measured."""

_COPY_BYTES = 32 << 20


def _cpu_round() -> int:
    """Integer arithmetic, calls, dict and list work of plain Python: what most tasks are made of."""
    table: dict[int, int] = {}
    total = 0
    for i in range(60_000):
        total = (total * 31 + i) & 0xFFFFFFFF
        table[total & 1023] = i
    squares = [x * x for x in range(40_000)]
    return total + sum(squares) + len(table)


def _memory_round(block: bytearray) -> int:
    """Copy a block that no cache holds."""
    return len(bytes(block))


def score() -> float:
    """Measure this computer: geometric mean of both parts, the CPU's counted twice. Takes about 0.3 s."""
    block = bytearray(_COPY_BYTES)
    cpu_s = memory_s = math.inf
    for _ in range(ROUNDS):
        began = time.perf_counter()
        _cpu_round()
        middle = time.perf_counter()
        _memory_round(block)
        cpu_s = min(cpu_s, middle - began)
        memory_s = min(memory_s, time.perf_counter() - middle)
    cpu, memory = REFERENCE_CPU_S / cpu_s, REFERENCE_MEMORY_S / memory_s
    return float((cpu * cpu * memory) ** (1 / 3))


async def measure(python: str, environment: Mapping[str, str]) -> float | None:
    """Run the benchmark in a process of its own; None if it fails or takes too long."""
    process = await asyncio.create_subprocess_exec(
        python,
        "-I",
        str(Path(__file__)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        return max(0.01, min(1000.0, float(out)))
    except (TimeoutError, ValueError):
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    sys.stdout.write(f"{score():.3f}\n")
