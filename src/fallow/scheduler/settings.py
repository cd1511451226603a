"""Every number that the scheduler's decisions depend on, with its unit and its reason."""

import msgspec


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler's constants. The defaults suit a few slots as well as ten thousand nodes."""

    target_lease_s: float = 1.0
    """Work per slot in a lease: long enough to hide any network, short enough to be given back soon."""
    low_water_s: float = 0.35
    """A node with less work than this is granted more before it runs dry; above the slowest round trip of the planet."""
    min_share_s: float = 0.02
    """Over the tail leases shrink, but not below this much work per slot: recall evens out what is smaller."""
    factoring: float = 2.0
    """A lease takes 1/factoring of the node's fair share of what is pending (factoring; Hummel et al., 1992)."""
    first_tasks_per_slot: int = 2
    """Size of leases of a job of which nothing was measured: one to run, one to have ready."""
    growth: int = 16
    """A lease has at most this many times the tasks measured so far, so that a wrong first guess costs little."""
    page_tasks: int = 4096
    """Leases much larger than the usual input page end at a page's edge."""
    heartbeat_s: float = 5.0
    """Interval of beats of nodes with leases."""
    idle_heartbeat_s: float = 30.0
    """Interval of beats of nodes without."""
    missed_beats: int = 3
    """A node is lost after this many intervals of silence."""
    grace_s: float = 5.0
    """How long a node whose connection closed may take to come back before it is lost."""
    hold_s: float = 10.0
    """After a restart, how long recorded leases wait for their nodes."""
    reclaim_after_s: float = 3.0
    """A lease that a heartbeat did not list, nor any other that came for this long, was never received, if later ones were.

    The newest lease of a node is given as long as the node itself: a busy hub reads heartbeats that were sent before it.
    """
    suspect_after_s: float = 1.0
    """Without a heartbeat to tell, tasks of a lease held longer than this are taken to have been running."""
    losses_before_alone: int = 3
    """A task that ran on this many nodes when they were lost runs alone next; at one more loss it fails."""
    kept_failures: int = 100
    """Failure records held per job; the counts beyond are exact."""
    snapshot_rows: int = 64
    """Result rows of a job between two snapshots of its settled set: bounds the work of a restart."""
    failures_per_page: int = 4096
    """Failures that the hub makes up itself travel in pages of this many, to stay below the frame limit."""
    recall_min_s: float = 0.05
    """Work that would start within this time where it is is not recalled: moving it takes as long."""
    recall_timeout_s: float = 2.0
    """After this long a recall without an answer may be repeated."""
    copy_gain: float = 1.2
    """A reduced lease gets a second attempt if the time left of the first is this many times the expected time of a copy."""
    copy_min_s: float = 0.1
    """A second attempt is made if it is expected to save more than this."""
    rescue_min_s: float = 1.0
    """The same while other tasks of the job are pending: then the second attempt keeps a slot from them."""
    tick_s: float = 0.25
    """How often idle nodes look again for work to take over, while there is any."""
    scan: int = 64
    """Candidates looked at per decision, so that no event's cost grows with the fleet."""
    leases_ahead: int = 64
    """Leases for later that a node holds, per slot at most two more: pieces between cancelled or finished tasks are each a lease."""
    grants_per_event: int = 512
    """Leases granted per event; the rest follow at once, after other events had their turn."""
    arrival_runs: int = 1024
    """Entries kept per job about when its inputs came; beyond, late ones share the last entry."""
    drain_limit_s: float = 30.0
    """A node is kept free for a task that needs more of it than is free now, if that takes no longer than this."""
