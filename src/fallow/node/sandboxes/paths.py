"""What of the computer a contained slot may read: the system's programs and libraries, and its interpreter."""

import os
from pathlib import Path

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Programs and libraries of the system."""
SETTINGS = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "fonts",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "pki/ca-trust",
    "pki/tls",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
)
"""What programs need of /etc: nothing that is about the owner."""
PROCESSORS = "/sys/devices/system/cpu"
"""Where programs count cores."""


def of_interpreter(python: str) -> tuple[Path, ...]:
    """Return what an interpreter reads: its installation, that of the one that it is a virtual environment of, and the
    symbolic links from one to the other.

    Raises OSError if that can't be shown without the owner's home.
    """
    here = Path(python)
    found: list[Path] = []
    settings = here.parent.parent / "pyvenv.cfg"
    if settings.exists():
        found.append(settings.parent)
        for line in settings.read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home":
                found.append(Path(value.strip()).parent)
    while here.is_symlink():
        if settings.parent not in here.parents:
            found.append(here)
        here = Path(os.path.normpath(here.parent / here.readlink()))
    found.append(here.parent.parent)
    home = Path.home()
    for path in found:
        if path in {home / ".local", home, *home.parents}:
            raise OSError(
                f"the interpreter {python} lies in {path}, which is the owner's: use one in a folder of its own"
            )
    return tuple(dict.fromkeys(found))
