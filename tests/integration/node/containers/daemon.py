"""A Docker daemon of the tests' own: its data, its socket and its network are apart from those of the system's."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

DEADLINE_S = 60.0


class Daemon:
    def __init__(self, number):
        """number: of this run among those at the same time."""
        self.folder = Path(tempfile.mkdtemp(prefix="fallow-dockerd-"))  # short: it holds sockets
        self.socket = self.folder / "sock"
        self.address = f"198.18.{number}.1"
        self._bridge = f"fallow-test{number}"

    @property
    def url(self):
        return f"unix://{self.socket}"

    def start(self):
        ip("link", "del", self._bridge, check=False)  # of a run that was killed
        ip("link", "add", self._bridge, "type", "bridge")
        ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")
        command = ["dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec",
                   "--pidfile", self.folder / "pid", "--host", self.url, "--bridge", self._bridge, "--group", "root",
                   "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false", "--shutdown-timeout=3"]  # fmt: skip
        # By a shell that ends: the daemon is nobody's child, as one of the system's.
        line = " ".join(map(str, command))
        subprocess.run(["sh", "-c", f"setsid {line} >{self.folder}/log 2>&1 </dev/null &"], check=True)
        self._until(self._answers)

    def stop(self):
        pid = int((self.folder / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        self._until(lambda: not Path(f"/proc/{pid}").exists())
        ip("link", "del", self._bridge, check=False)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if (place := line.split()[1]).startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", place], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b"200 OK" in client.recv(1000)
        return False

    def _until(self, condition):
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.02)


def ip(*arguments, check=True):
    subprocess.run(["ip", *arguments], check=check, capture_output=True)
