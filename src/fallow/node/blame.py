"""Whose fault the death of a slot is: which task of its batch is to blame, if any, and for what."""

from fallow.model.failure import Failure
from fallow.node.batch import Batch
from fallow.node.program_tail import last_lines, tail_of
from fallow.node.slot import Slot


def blamed_task(slot: Slot, batch: Batch) -> int | None:
    """Return the task of the batch that its slot has died of; None if the death was ours, or none was running."""
    if slot.end_reason in {"cancelled", "recycled"}:
        return None
    index = slot.process.running_index if slot.end_reason in {None, "faulty"} else slot.end_index
    if batch.next <= index < batch.stop:
        return index
    # A faulty one has overwritten its counter too: unless a task is blamed it goes on for ever.
    return batch.next if slot.end_reason == "faulty" else None


def failure_of(
    slot: Slot, batch: Batch, index: int, exit_code: int | None, signal_name: str | None, *, is_program: bool, node: str
) -> Failure:
    """Return what is known of a task that its slot has died of."""
    excess = None if slot.process.guard is None else slot.process.guard.excess
    if excess is not None and slot.end_reason in {None, "limit"}:
        kind, message = "limit", str(excess)
        exit_code = signal_name = None
    elif slot.end_reason == "timeout":
        kind, message = "timeout", f"ran longer than its timeout of {batch.timeout_s:g} s"
        exit_code = signal_name = None
    elif slot.end_reason == "faulty":
        kind, message = "crashed", "wrote into its slot's connection to the agent"
    else:
        how = f"was ended by {signal_name}" if signal_name else f"ended with exit code {exit_code}"
        kind, message = "crashed", f"the process that ran it {how}"
    output = slot.last_words
    if is_program:
        output = output or tail_of(slot.process.folder)
        if output and kind in {"limit", "timeout"}:
            message += f": {last_lines(output)}"
    return Failure(
        index=index,
        kind=kind,
        message=message,
        node=node,
        exit_code=exit_code,
        signal=signal_name,
        peak_memory_bytes=slot.process.peak_memory_bytes,
        output=output or slot.process.tail(index),
    )
