"""The hub of the fault harness: as `fallow hub` runs it, but it does not wait as long for clients that were killed."""

import faulthandler
import os
import signal
import sys
from pathlib import Path

from fallow.cli.logs import log_to_stderr
from fallow.cli.loop import run_loop
from fallow.hub.core.opening import open_hub
from fallow.hub.core.settings import HubSettings
from fallow.hub.web.server import serve

SESSION_GRACE_S = 30.0  # longer than any run of cuts: a client that was away for longer has lost its unnamed jobs

if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    folder, port, reserve_bytes = sys.argv[1:]
    log_to_stderr(verbose=True)
    settings = HubSettings(
        folder=Path(folder),
        admin_secret=os.environ["FALLOW_ADMIN_TOKEN"],
        join_secret=os.environ["FALLOW_JOIN_TOKEN"],
        reserve_bytes=int(reserve_bytes),
        session_grace_s=SESSION_GRACE_S,
    )
    sys.exit(run_loop(serve(open_hub(settings), "127.0.0.1", int(port), lambda address: print(address, flush=True))))
