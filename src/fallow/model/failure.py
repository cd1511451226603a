"""How a task failed: a typed record that the hub can read, beside the exception that it can't."""

import msgspec

TRACEBACK_BYTES = 16 * 1024
"""Traceback text kept per failure: room for a deep stack, small enough for a frame full of failures."""


class Failure(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Why the task at `index` has no value."""

    index: int
    kind: str
    """"raised" (the function raised), "crashed" (its slot died), "timeout", "limit" (over one of its limits), "lost_nodes",
    "environment" (its node could not give it what it asks for), "program" (it said that its input is at fault), "cancelled" or
    "input" (the parent's task of the same index failed)."""
    type_name: str = ""
    """Qualified name of the exception's class, such as "ValueError"."""
    message: str = ""
    traceback: str = ""
    """The remote traceback's text, at most TRACEBACK_BYTES."""
    exception: bytes | None = None
    """The pickled exception, opaque to the hub; None if it could not be pickled."""
    node: str = ""
    """Name of the node of the last attempt."""
    attempts: int = 1
    exit_code: int | None = None
    signal: str | None = None
    """Name of the signal that ended the slot, such as "SIGSEGV"."""
    peak_memory_bytes: int | None = None
    output: str = ""
    """The last lines that the task printed, for a task whose slot died."""
    is_of_node: bool = False
    """Of kind "environment": whether the job's other tasks would meet the same on this node."""
