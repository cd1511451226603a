"""How long tasks take: estimates per job and per node, from what was measured.

Work is measured in reference seconds: seconds on a node times its score. A job's mean comes from recent pages; a
histogram over all of them tells what to expect of a task that runs long already (LATE; Zaharia et al., 2008).
"""

from math import isfinite, log2

DECAY = 0.98
"""Weight of what was measured before one page, at the next: a window of about 50 pages."""

PRIOR_TASKS = 12
"""A node's score counts as much as this many tasks measured there."""

OUTLIER = 8.0
"""A page counts against a node's pace at most this many times over, so that one long task does not mark a slow node."""

NOT_SHORT_S = 1.0
"""What has run for this long is no short task, whatever else is unknown."""

SHORTEST_S = 1e-7
"""No task is taken to be shorter: below the clock's resolution and the cost of a call."""


class TaskTimes:
    """Measured durations of one job's tasks, in reference seconds."""

    __slots__ = ("_bins", "_overdue", "_overdue_work", "_tasks", "_work", "largest", "measured")

    def __init__(self) -> None:
        self.measured = 0
        """Tasks measured so far."""
        self.largest = 0.0
        self._tasks = 0.0
        self._work = 0.0
        self._bins: dict[int, tuple[int, float]] = {}
        self._overdue: dict[int, float] = {}
        self._overdue_work = 0.0

    @property
    def mean(self) -> float | None:
        """Expected work of a task, or None while nothing is known."""
        tasks = self._tasks + len(self._overdue)
        return (self._work + self._overdue_work) / tasks if tasks else None

    def add(self, tasks: int, elapsed_s: float, score: float) -> None:
        """Note that `tasks` tasks took `elapsed_s` together on a node of this score."""
        if not (isfinite(elapsed_s) and elapsed_s >= 0):
            return
        each = max(elapsed_s * score / tasks, SHORTEST_S)
        self.measured += tasks
        self._tasks = self._tasks * DECAY + tasks
        self._work = self._work * DECAY + each * tasks
        self.largest = max(self.largest, each)
        key = int(log2(each) * 2)
        count, work = self._bins.get(key, (0, 0.0))
        self._bins[key] = (count + tasks, work + each * tasks)

    def note_running(self, index: int, work: float) -> None:
        """Note that a task has run for this much work already and is not done.

        Only tasks far over the mean are held: they say that the mean is too low. While nothing is measured, those that
        are long enough to tell that tasks are not short.
        """
        mean = self.mean
        if index in self._overdue or work > (NOT_SHORT_S if mean is None else OUTLIER * mean):
            self._overdue_work += work - self._overdue.get(index, 0.0)
            self._overdue[index] = work

    def note_settled(self, start: int, stop: int) -> None:
        """Forget what `note_running` said of these tasks."""
        if self._overdue:
            for index in [each for each in self._overdue if start <= each < stop]:
                del self._overdue[index]
            self._overdue_work = sum(self._overdue.values())

    def total_given(self, work: float) -> float | None:
        """Return the expected work of a task of which `work` is done; None if no task was ever that long."""
        count, total = 0, 0.0
        for tasks, work_of_bin in self._bins.values():
            if work_of_bin > work * tasks:
                count += tasks
                total += work_of_bin
        return total / count if count else None


class Pace:
    """How fast one node is at one job, compared with its score."""

    __slots__ = ("_expected", "_spent")

    def __init__(self) -> None:
        self._expected = 0.0
        self._spent = 0.0

    def add(self, expected: float, spent: float) -> None:
        """Note a page that was expected to take `expected` work and took `spent`."""
        self._expected = self._expected * DECAY + expected
        self._spent = self._spent * DECAY + min(spent, OUTLIER * expected)

    def factor(self, mean: float) -> float:
        """Return how many times faster than its score says the node is."""
        prior = PRIOR_TASKS * mean
        return (prior + self._expected) / (prior + self._spent)
