"""The task that agents run to prove a sandbox."""


def finds(paths: list[str]) -> list[bool]:
    """Return which files the task can read."""
    return [_reads(path) for path in paths]


def _reads(path: str) -> bool:
    try:
        with open(path, "rb"):  # noqa: PTH123 -- pathlib is not needed otherwise
            return True
    except OSError:
        return False
