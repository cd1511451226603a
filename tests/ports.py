"""Ports for programs that are started again on the port that they had, or that are told theirs before they listen.

One that the system hands out is anybody's again as soon as it is free: another test's server may get it in between.
"""

import itertools
import os
import random
import socket

FIRST, OF_A_PROCESS = 20_000, 1_000
"""They lie below those that the system hands out; each process of the tests has some of its own."""

_turns = itertools.count(random.SystemRandom().randrange(OF_A_PROCESS))


def lasting_port():
    """Return a port on which nobody listens, and which no other test is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for turn in itertools.islice(_turns, OF_A_PROCESS):
        port = FIRST + worker % 10 * OF_A_PROCESS + turn % OF_A_PROCESS
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("all ports for tests are in use")
