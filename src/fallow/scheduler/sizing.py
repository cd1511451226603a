"""How many tasks a lease has. The user never picks a chunk size.

First a few tasks per slot, then toward a target time from what was measured, and over the tail a fraction of the
node's fair share (factoring: Hummel, Schonberg and Flynn, 1992), weighted by the nodes' speeds.
"""

from math import ceil

from fallow.scheduler.books import Books
from fallow.scheduler.job_state import JobState
from fallow.scheduler.node_state import NodeState


def lease_size(books: Books, job: JobState, node: NodeState, room: int) -> tuple[int, bool]:
    """Return how many tasks of the job to grant to the node, and whether it is a probe: small, to measure first.

    room: tasks that could start there at once; 0 when the node is granted work ahead.
    """
    settings, work_class = books.settings, job.work_class
    slots = room or node.capacity[work_class]
    pending = job.pending_count
    is_shared = len(work_class.ready) > 1
    share = pending * node.capacity[work_class] * node.score / work_class.power if is_shared else pending
    each_s = books.seconds_per_task(job, node)
    first = slots * settings.first_tasks_per_slot
    if each_s is None:
        return max(1, min(first, ceil(share))), True
    wanted = settings.target_lease_s * slots / each_s
    if is_shared:
        wanted = min(wanted, max(share / settings.factoring, settings.min_share_s * slots / each_s))
    wanted = min(max(wanted, min(room, share)), pending)
    most = settings.growth * max(job.times.measured, first)
    return max(1, int(min(wanted, most))), wanted > most


def cut(books: Books, job: JobState, count: int) -> tuple[int, int]:
    """Take up to `count` tasks from the front of the queue, as one range; large ones end at a page's edge."""
    head = job.head()
    page = books.settings.page_tasks
    if count > 2 * page:
        count -= (head.first + count) % page
    taken = head.take(count)
    assert taken is not None, "cut from a job with nothing pending"
    return taken
