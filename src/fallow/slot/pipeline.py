"""A job's stages, compiled to one plain loop: the cost over the user's own calls is a store and an append per item.

stages ("map", "filter")  →  for x in items:
                                 index += 1
                                 counter[0] = index
                                 try:
                                     x = f0(x)
                                     if not f1(x):
                                         continue
                                     append(x)
                                     keep(index - 1)
                                 except BaseException as error:
                                     fail(index - 1, error)
"""

from collections.abc import Callable, Iterable, Sequence
from time import monotonic_ns
from typing import Any

from fallow.slot.failures import PIPELINE_FILE
from fallow.slot.protocol import RUNNING, STARTED_NS

NOTHING = object()
"""The fold of no items."""

_CALLS = {
    "map": "x = {f}(x)",
    "starmap": "x = {f}(*x)",
    "run": "x = {f}(index - 1, x)",
    "call": "args, kwargs = x; x = {f}(*args, **kwargs)",
    "apply": "call, args, kwargs = x; x = call(*args, **kwargs)",
}


class Pipeline:
    """The functions of one job, ready to run.

    reduces: the last stage folds. filters: not every item has a result.
    """

    def __init__(self, stages: Sequence[str], functions: Sequence[Any], *, has_timeout: bool) -> None:
        if len(stages) != len(functions):
            raise ValueError(f"{len(stages)} stages, {len(functions)} functions")
        self.reduces = stages[-1] == "reduce"
        self.filters = "filter" in stages
        names: dict[str, Any] = {"now": monotonic_ns, "NOTHING": NOTHING}
        names.update({f"f{at}": function for at, function in enumerate(functions)})
        exec(compile(_source(tuple(stages), has_timeout), PIPELINE_FILE, "exec"), names)  # noqa: S102 -- our own text
        self._loop: Callable[..., Any] = names["loop"]

    def run(
        self,
        items: Iterable[Any],
        index: int,
        counter: memoryview,
        values: list[Any],
        kept: list[int],
        fail: Callable[[int, BaseException], None],
    ) -> None:
        """Run items of consecutive indices from `index` on.

        values: results are appended; a fold is continued in values[0]. kept: indices are appended, if the job filters.
        fail: called for each task that raises; what it raises itself goes through, and `items`, if it is an iterator,
        can be gone on with.
        """
        if self.reduces:
            self._loop(items, index, counter, values, fail)
        else:
            self._loop(items, index, counter, values.append, kept.append, fail)


def _source(stages: tuple[str, ...], has_timeout: bool) -> str:
    reduces = stages[-1] == "reduce"
    body = []
    for at, kind in enumerate(stages):
        f = f"f{at}"
        if kind == "filter":
            body += [f"if not {f}(x):", "    continue"]
        elif kind == "reduce":
            if at != len(stages) - 1:
                raise ValueError("reduce must be the last stage")
            body.append(f"folded = x if folded is NOTHING else {f}(folded, x)")
        elif kind in _CALLS:
            body.append(_CALLS[kind].format(f=f))
        else:
            raise ValueError(f"unknown stage {kind!r}")
    if stages == ("map",):  # the common case, without a detour over x
        body = ["append(f0(x))"]
    elif not reduces:
        body.append("append(x)")
    if "filter" in stages and not reduces:
        body.append("keep(index - 1)")
    lines = [
        "def loop(items, index, counter, values, fail):" if reduces else "def loop(items, index, counter, append, keep, fail):",
        *(["    folded = values[0] if values else NOTHING"] if reduces else []),
        "    for x in items:",
        "        index += 1",
        *([f"        counter[{STARTED_NS}] = now()"] if has_timeout else []),
        f"        counter[{RUNNING}] = index",
        "        try:",
        # An item of a page of calls comes as a function that unpickles it, so that its failure is its own.
        *(["            x = x()"] if stages[0] in {"call", "apply"} else []),
        *[f"            {line}" for line in body],
        "        except BaseException as error:",
        *(["            values[:] = () if folded is NOTHING else (folded,)"] if reduces else []),
        "            fail(index - 1, error)",
        *(["    values[:] = () if folded is NOTHING else (folded,)"] if reduces else []),
    ]  # fmt: skip
    return "\n".join(lines)
