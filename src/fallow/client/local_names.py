"""Under which names this computer can have the files that tasks put out, which may have run on another system."""

import hashlib
import os
import re

from fallow.slot.attempt import BadFile

_UNFIT_ON_WINDOWS = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)', re.IGNORECASE)


def local_name(name: str, *, is_windows: bool = os.name == "nt") -> str:
    """Return the path below its task's folder under which an output is written; raises BadFile for one that lies outside.

    Where the system can't have one of its names, that is written with _ for what is unfit, and a digest of the name.
    """
    parts = name.split("/")
    if any(part in {"", ".", ".."} for part in parts) or "\0" in name:
        raise BadFile(f"{name!r:.80} lies outside of the task's working folder")
    return "/".join(map(_fit_for_windows, parts)) if is_windows else name


def _fit_for_windows(part: str) -> str:
    fit = _UNFIT_ON_WINDOWS.sub(lambda found: f"_{found[1]}" if found[1] else "_", part)
    return part if fit == part else marked(fit, part)


def marked(fit: str, name: str) -> str:
    """Return a name with what tells it from others that it would be written like."""
    return f"{fit}#{hashlib.sha256(name.encode()).hexdigest()[:8]}"
