"""How many tasks a slot is handed at a time, from what was measured of the job on this node. Pure."""

TARGET_S = 0.005
"""Work in a batch: long enough that its cost (0.1 ms) is 2 %, short enough that nothing waits long for a slot."""
REDUCE_TARGET_S = 0.1
"""The same for jobs that fold: each batch gives one partial, and the client folds all of them."""
TARGET_BYTES = 256 * 1024
"""Results in a batch, so that pages stay inline and move early."""
GROWTH = 8
"""A batch is at most this many times as long as the last: one fast task says little."""
MAX_TASKS = 1 << 17
SMOOTHING = 0.5
"""Weight of the newest batch in the mean."""
FORGETTING = 0.9
"""The slowest batch seen counts this much less with each batch."""
EARLY_TASK_S = 0.002
"""A second batch is sent to a busy slot only if tasks are shorter than this: waiting 0.1 ms for the next costs less then
than a task stuck behind a long one."""
EARLY_SLOWEST_S = 4 * TARGET_S
EARLY_PROGRAM_S = 0.02
"""The same for programs, which are handed out one at a time: starting one takes some milliseconds, and what waits behind one that
takes unexpectedly long is taken back."""


class BatchSizer:
    """Of one job on one node."""

    def __init__(self, *, reduces: bool, singly: bool = False) -> None:
        """singly: each task is a batch, as its results may be blamed on the node, which is told for one task."""
        self._singly = singly
        self._target_s = REDUCE_TARGET_S if reduces else TARGET_S
        self._task_s = 0.0
        self._task_bytes = 0.0
        self._slowest_s = 0.0
        self._largest = 0
        self._measured = 0

    def note(self, tasks: int, elapsed_s: float, result_bytes: int, *, is_first: bool) -> None:
        """Take the measure of a finished batch. is_first: of the job in its slot, where imports and caches distort it."""
        if tasks <= 0:
            return
        each_s = elapsed_s / tasks
        weight = SMOOTHING if self._measured > 1 else 1.0
        self._task_s += weight * (each_s - self._task_s)
        self._task_bytes += weight * (result_bytes / tasks - self._task_bytes)
        self._slowest_s *= FORGETTING
        if not is_first:
            self._slowest_s = max(self._slowest_s, elapsed_s)
        self._largest = max(self._largest, tasks)
        self._measured += 1

    def count(self) -> int:
        """Return how many tasks the next batch may have."""
        if not self._measured or self._singly:
            return 1
        # Where the times have a heavy tail, the mean is not to be trusted.
        each_s = max(self._task_s, self._slowest_s / 10 if self._slowest_s > 2 * self._target_s else 0.0, 1e-8)
        count = int(min(self._target_s / each_s, self._largest * GROWTH, MAX_TASKS))
        if self._task_bytes > 1:
            count = min(count, int(TARGET_BYTES / self._task_bytes))
        return max(count, 1)

    def expected_s(self, tasks: int) -> float:
        """Return how long a batch of so many tasks should take; what is known is the mean."""
        return tasks * self._task_s

    def may_send_early(self) -> bool:
        """Whether a slot may be sent a batch while it works on another."""
        limit_s = EARLY_PROGRAM_S if self._singly else EARLY_TASK_S
        return self._measured > 1 and self._task_s < limit_s and self._slowest_s < max(EARLY_SLOWEST_S, 2 * limit_s)
