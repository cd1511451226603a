"""A long wait shows how far the job is, also while results keep coming."""

import os
import re
import subprocess
import sys

import pytest
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.slow

PROGRAM = """
import time
from fallow import Grid
from fallow.client import progress
progress.PATIENCE_S = 0.1
with Grid(slots=2, progress=True) as grid:
    assert sum(grid.map(lambda x: time.sleep(0.02) or 1, range(100))) == 100
"""


def test_the_bar_is_shown_while_results_come():
    environment = {**os.environ, "TTY_COMPATIBLE": "1", "FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, env=environment
    )
    assert found.returncode == 0, found.stderr
    assert "map(<lambda>)" in found.stderr
    assert "/100" in found.stderr
    assert found.stdout == ""


CELL = """
import time
from fallow import Grid
from fallow.client import progress
progress.PATIENCE_S = 0.1

def fail_at_7(x):
    time.sleep(0.02)
    return 1 / (x - 7)

with Grid(slots=2) as grid:
    print(len(grid.map(fail_at_7, range(100)).result(60, return_exceptions=True)))
"""


def test_the_bar_is_drawn_in_a_notebook_without_widgets(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager.start_kernel(cwd=tmp_path)
    outputs = []
    try:
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=120)
        reply = client.execute_interactive(CELL, timeout=120, output_hook=outputs.append)
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", outputs
    printed = [each["content"] for each in outputs if each["msg_type"] == "stream"]
    assert printed == [{"name": "stdout", "text": "100\n"}]
    [begun] = [each["content"] for each in outputs if each["msg_type"] == "display_data"]
    drawn = [each["content"] for each in outputs if each["msg_type"] == "update_display_data"]
    assert len(drawn) > 2
    assert {each["transient"]["display_id"] for each in drawn} == {begun["transient"]["display_id"]}
    *shown, last = [each["data"] for each in drawn]
    assert last == {"text/plain": "", "text/html": ""}
    for each in shown:
        assert re.fullmatch(r"map\(fail_at_7\) \[=* *\] \d+/100(, 1 failed)?, \d+ s", each["text/plain"]), each
        assert re.fullmatch(
            r'map\(fail_at_7\) <progress value="[01]\.\d+" max="1"></progress> \d+/100.*', each["text/html"]
        ), each
    assert "1 failed" in shown[-1]["text/plain"]
