"""Logs of long-running commands: an event and its fields per line, on stderr."""

import logging


def log_to_stderr(*, verbose: bool) -> None:
    """Log what matters, or everything, to stderr: stdout is for results."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    )
    logger = logging.getLogger("fallow")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
