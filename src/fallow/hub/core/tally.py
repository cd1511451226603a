"""Counts of what happened since the hub started, kept as events pass by: one addition for a lease or a page, none for a task."""

from collections import defaultdict

from fallow.model.events import Event, JobEnded


class Tally:
    """One per event board."""

    def __init__(self) -> None:
        self.events: defaultdict[type[Event], int] = defaultdict(int)
        self.settled_of_ended = 0
        """Tasks settled, failed ones among them, of the jobs that have ended since the start."""
        self.failed_of_ended = 0

    def add(self, event: Event) -> None:
        self.events[type(event)] += 1
        if type(event) is JobEnded:
            self.settled_of_ended += event.settled
            self.failed_of_ended += event.failed
