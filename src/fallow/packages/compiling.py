"""`uv pip compile`: from requirements to exact versions and hashes, of one Python and all platforms."""

import asyncio
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fallow.model.environment import LockedPackage
from fallow.model.errors import BadRequest

REQUIREMENTS = "requirements.in"
_LOCKED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)\s*(?:;\s*(.*))?")


def prepare(uv: str, folder: Path, python: str, requirements: Sequence[str]) -> list[str]:
    """Write what uv reads into an empty folder, and return the command to run there. python: a minor version, such as "3.12"."""
    (folder / REQUIREMENTS).write_text("".join(f"{each}\n" for each in requirements))
    # For all platforms, but this Python alone: others may need other versions, which then fit nothing.
    (folder / "pyproject.toml").write_text(f"[tool.uv]\nenvironments = [\"python_version == '{python}'\"]\n")
    command = [uv, "pip", "compile", REQUIREMENTS, "--quiet", "--universal", "--python", sys.executable]
    command += ["--python-version", python, "--generate-hashes", "--only-binary", ":all:", "--strip-extras"]
    return [*command, "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]


async def run_uv(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> tuple[int, str, str]:
    """Run uv; return its exit code, its output and its explanation. Raises BadRequest if it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=dict(environment),
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, problem = await process.communicate()
    except TimeoutError as error:
        raise BadRequest(f"{' '.join(command[1:3])} took over {timeout_s:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(), problem.decode("utf-8", "replace").strip()


def locked_lines(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each requirement of the output, with its SHA-256 hashes in hex."""
    for line in text.replace("\\\n", " ").splitlines():
        requirement, *hashes = line.split("--hash=")
        requirement = requirement.strip()
        if requirement and not requirement.startswith(("#", "-")):
            yield requirement, tuple(each.strip().removeprefix("sha256:") for each in hashes)


def locked_package(requirement: str, sha256: tuple[str, ...]) -> LockedPackage:
    """Return what a line names; raises BadRequest if that is not a package of an index."""
    match = _LOCKED.fullmatch(requirement)
    if match is None:
        raise BadRequest(f"{requirement!r:.200} does not come from a package index, so that nodes could not get it")
    return LockedPackage(match[1], match[2], sha256, (match[3] or "").strip())
