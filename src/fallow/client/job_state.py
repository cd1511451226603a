"""What is known of a job, shared by its `Job`, its readers, its feeder and the session."""

import threading

from fallow.client.inputs import Gate
from fallow.client.readers import end_error
from fallow.client.result_page import Present
from fallow.model.ids import JobId
from fallow.model.job import JobProgress


class JobState:
    """Outlives the `Job`."""

    def __init__(self, job: JobId, label: str, gate: Gate) -> None:
        self.job = job
        self.label = label
        self.condition = threading.Condition()
        self.progress: JobProgress | None = None
        self.size: int | None = None
        self.error: BaseException | None = None
        self.gate = gate
        self.outlives_client = False
        """Whether the job is named, or one that a named job goes on from: then all its inputs are to reach the hub."""
        self.present: Present | None = None
        """Makes what users see of a page's values and their indices; None: they are seen as they are."""
        self.is_dropped = False
        """Whether the `Job` went while its inputs were still being sent."""
        self.is_cancelled = self.is_released = False
        """Whether nobody wants it any more; `start_job` looks, as the hub can't be told of a job that it does not know yet."""

    def on_progress(self, progress: JobProgress) -> None:
        with self.condition:
            self.progress = progress
            if progress.ended:
                self.gate.close()
            self.condition.notify_all()

    def on_error(self, error: BaseException) -> None:
        with self.condition:
            if self.error is None:
                self.error = error
            self.gate.close()
            self.condition.notify_all()

    def is_over(self, read: int) -> bool:
        """Whether a reader that has seen `read` tasks has seen them all; raises the error that the job ended with."""
        if self.error is not None:
            raise self.error
        progress = self.progress
        if progress is None or not (progress.ended or progress.input_ended):
            return self.size is not None and read >= self.size
        if not progress.ended:
            return False
        if progress.state == "done" and progress.size is not None and read < progress.size:
            return False  # the rest is on its way
        error = end_error(progress, self.label)
        if error is not None:
            raise error
        return True
