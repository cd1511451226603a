"""How long tasks take: estimates per job and per node, from what was measured.

Work is measured in reference seconds: seconds on a node times its score. A job's mean comes from recent pages; a
histogram over all of them tells what to expect of a task that runs long already (LATE; Zaharia et al., 2008). A node is
compared with others by geometric means, which a few very long tasks do not move.
"""

from math import exp, isfinite, log, log2

DECAY = 0.98
"""Weight of what was measured before one page, at the next: a window of about 50 pages."""

USUAL_DECAY = 0.995
"""The same for what is usual for the job as a whole: a window of about 200 pages."""

LINDY = (1.2, 2.0, 6.0)
"""What has lasted for a time lasts this many times that in all, a third each (Lindy's law: half of it twice as long)."""

PRIOR_TASKS = 12
"""A node's score counts as much as this many tasks measured there."""

OUTLIER = 8.0
"""A page counts for or against a node's pace at most this many times over; running tasks this far over the mean are held."""

NOT_SHORT_S = 1.0
"""What has run for this long is no short task, whatever else is unknown."""

SHORTEST_S = 1e-7
"""No task is taken to be shorter: below the clock's resolution and the cost of a call."""


class TaskTimes:
    """Measured durations of one job's tasks, in reference seconds."""

    __slots__ = ("_bins", "_log_pages", "_logs", "_overdue", "_overdue_work", "_tasks", "_work", "largest", "measured")

    def __init__(self) -> None:
        self.measured = 0
        """Tasks measured so far."""
        self.largest = 0.0
        self._tasks = 0.0
        self._work = 0.0
        self._logs = 0.0
        self._log_pages = 0.0
        self._bins: dict[int, tuple[int, float]] = {}
        self._overdue: dict[int, float] = {}
        self._overdue_work = 0.0

    @property
    def mean(self) -> float | None:
        """Expected work of a task, or None while nothing is known."""
        tasks = self._tasks + len(self._overdue)
        return (self._work + self._overdue_work) / tasks if tasks else None

    @property
    def usual(self) -> float | None:
        """Geometric mean of a task's work over pages, or None while nothing is known."""
        return exp(self._logs / self._log_pages) if self._log_pages else None

    def left(self, tasks: int) -> float:
        """Return the expected work of so many tasks, from all that were ever measured. Only once one was."""
        work = sum(work for _, work in self._bins.values()) + self._overdue_work
        return tasks * work / (self.measured + len(self._overdue))

    def add(self, tasks: int, elapsed_s: float, score: float) -> None:
        """Note that `tasks` tasks took `elapsed_s` together on a node of this score."""
        if not (isfinite(elapsed_s) and elapsed_s >= 0):
            return
        each = max(elapsed_s * score / tasks, SHORTEST_S)
        self.measured += tasks
        self._tasks = self._tasks * DECAY + tasks
        self._work = self._work * DECAY + each * tasks
        self._logs = self._logs * USUAL_DECAY + log(each)
        self._log_pages = self._log_pages * USUAL_DECAY + 1
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

    def saved_by_copy(self, work: float, there: float, here: float, rest_s: float) -> float:
        """Return the expected seconds by which a second attempt is done before the first, where that is after `rest_s`.

        work: what the first has done of the task. there, here: speeds of the first's and the second's node. What the task
        needs in all is judged from the tasks of the job that were longer, and from one more that follows Lindy's law.
        """

        def saved(total: float) -> float:
            return max(0.0, (total - work) / there - max(total / here, rest_s))

        if not self.measured:
            return 0.0
        longer = [(tasks, total / tasks) for tasks, total in self._bins.values() if total > work * tasks]
        lasting = sum(saved(factor * work) for factor in LINDY) / len(LINDY)
        if not longer:  # or its node is to blame: then it lasts as long again there, and no longer than others here
            return max(lasting, work / there - max(self.largest / here, rest_s))
        count = sum(tasks for tasks, _ in longer)
        return (sum(tasks * saved(total) for tasks, total in longer) + lasting) / (count + 1)


class Pace:
    """How fast one node is at one job, compared with its score."""

    __slots__ = ("_logs", "_tasks")

    def __init__(self) -> None:
        self._tasks = 0.0
        self._logs = 0.0

    def add(self, tasks: int, ratio: float) -> None:
        """Note a page of so many tasks that took `ratio` times the work that is usual."""
        self._tasks = self._tasks * DECAY + tasks
        self._logs = self._logs * DECAY + tasks * log(min(max(ratio, 1 / OUTLIER), OUTLIER))

    @property
    def factor(self) -> float:
        """How many times faster than its score says the node is."""
        return exp(-self._logs / (PRIOR_TASKS + self._tasks))
