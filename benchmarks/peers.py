"""The peers' virtual environments: one each, made when it is first needed, from the pins in peers/*.txt.

`python benchmarks/peers.py ray dask` makes or renews these, none named: all. They are in `.peers/`, or in the folder that
$BENCH_ENVIRONMENTS names.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).parent
ENVIRONMENTS = Path(os.environ.get("BENCH_ENVIRONMENTS", FOLDER / ".peers"))
PEERS = ("joblib", "ray", "dask", "parsl", "celery", "hyperqueue")
INSTALL_LIMIT_S = 900


class NotInstalled(Exception):
    """A peer's environment could not be made; the message says why."""


def interpreter(peer: str) -> Path:
    """Return the Python of a peer's environment, making it unless it has all that is pinned. Raises NotInstalled."""
    pins = FOLDER / "peers" / f"{peer}.txt"
    folder = ENVIRONMENTS / peer
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "installed.txt"
    wanted = f"{sys.version}\n{pins.read_text()}"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {peer} into {folder}", file=sys.stderr, flush=True)
    venv.create(folder, clear=True, with_pip=True)
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--requirement", pins]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"pip took over {INSTALL_LIMIT_S} s") from error
    if done.returncode:
        raise NotInstalled("; ".join(done.stderr.strip().splitlines()[-3:]))
    stamp.write_text(wanted)
    return python


if __name__ == "__main__":
    for name in sys.argv[1:] or PEERS:
        print(name, interpreter(name))
