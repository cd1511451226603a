"""The messages between an agent and its slots: a fixed header and bytes. Imported by both ends.

Agent to slot, on the slot's first fd 0:

    LOAD    a job: body = JSON `[stages, codec, function path or null, counting [start, step] or null, has timeout,
            source folders, refs {digest: path}]`, then the function's bytes if they have no path. c = length of the JSON,
            a = milliseconds between checkpoints of a task
    PAGE    inputs [a, b) of a job, page number d: body = JSON `[path or null, kept ranges or null, refs]`, then the page's bytes if they
            have no path. c = length of the JSON, 0 for none: bytes, all kept, no refs
    RUN     run the tasks [a, b), whose inputs are in page number c (-1: the job counts). d = number of the run, from 1 on
    FORGET  the page number a; the whole job if a is -1
    RESUME  task a of a job, which the next RUN brings, goes on from a checkpoint: body = path of the file

Agent to slot, on the control pipe, so that it is heard while a task runs:

    CUT     give back all tasks that have not begun of the runs up to number a

Slot to agent, on the slot's first fd 1:

    READY   after start. a = process id
    DONE    the tasks [a, b) are done, in d nanoseconds; a RUN is answered by one or, if many tasks fail, several, in
            order: body = JSON `[path or null, size, kept ranges or null,
            [[index, type name, message, traceback, length of the pickled exception], …], [path of a file that the values refer to,
            …]]`, then the pickled exceptions, then
            the result page if it has no path. c = length of the JSON, 0 for none: bytes, all kept, no failures
    PRINTED output of tasks: body = (i64 index, u32 length, UTF-8 text), repeated
    GAVE    answer to CUT c: of run number a, the last that has begun, the tasks from index b on are given back (none, if
            that is its end), and the later runs, up to number c, whole. No DONE names them; the DONE of the
            tasks before b may come before this
    SAVED   task a left a checkpoint: body = path of the file, in the slot's folder; the agent takes it away
    PROGRESS of task a: body = JSON `[fraction or null, message]`

In a container, fds 0 and 1, fd 2 and the control pipe are CONNECTIONS to a socket of the agent in the slot's folder, made in
this order; the last one is the keeper's (fallow.slot.contained), which writes a STATE for each byte that it reads, and one
when the slot has ended.

Everything in JSON, because the agent must not unpickle (or unmarshal) what user code can write.

Shared counter: a file of COUNTER_BYTES that both map, native u64. Cell RUNNING holds the index of the task that runs plus
one (0: none); cell STARTED_NS the monotonic clock when it began, for jobs with a timeout (0: no task has begun, the
slot loads the function or inputs); cell LAST, between two runs, the index of the last task that ran plus one. So the
agent knows which task a dead slot was on, and whose output it reads, without a message per task.
"""

import struct

HEADER = struct.Struct("<B3xIIqqqq")
"""Kind, job key (the agent's number for a job in this slot), length of the body, and the numbers a, b, c, d."""

LOAD, PAGE, RUN, FORGET, CUT, RESUME = 1, 2, 3, 4, 8, 10
READY, DONE, PRINTED, GAVE, SAVED, PROGRESS = 5, 6, 7, 9, 11, 12

PRINTED_ENTRY = struct.Struct("<qI")

CONTAINED = "unix:"
"""Before the path of the agent's socket, in place of the control pipe."""
CONNECTIONS = 4
STATE = struct.Struct("<?iqqq")
"""Whether the slot has ended, its return code as `Popen.returncode` has it, and of the whole container the peak memory in bytes, the
number of processes killed for want of memory, and how often it was refused a process.
"""

COUNTER_BYTES = 64
"""A cache line."""
RUNNING, STARTED_NS, LAST = 0, 1, 2

ENVIRONMENT_FAULT, INPUT_FAULT, PROGRAM_FAILED = "EnvironmentFault", "InputFault", "ProgramFailed"
NODE_FAULT = "NodeFault"
"""An environment fault that every task of the job would meet on this node: it lacks the program."""
"""Type names of a program's failures: the node is to blame (it is tried elsewhere); its input is (it is not tried again);
its exit code says no more than that it failed."""

MAX_BODY_BYTES = 8 << 20
"""No message is longer: pages over 960 KiB go by path, and failures are bounded per page."""

MAX_PRINTED_BYTES = 64 * 1024
"""Output kept per task, of what it prints and what it writes to fd 1 and 2 together."""
CUT_NOTE = b"\n[output cut at 64 KiB]\n"
