"""The task that agents run to prove a sandbox."""


def finds(path: str) -> bool:
    """Return whether the task can read a file that it must not see."""
    try:
        with open(path, "rb"):  # noqa: PTH123 -- pathlib is not needed otherwise
            return True
    except OSError:
        return False
