"""Runs one system in the environment that this was started with: `python worker.py dask`.

Says "ready" after the first result. Then takes one request a line, `{"workload": …, "sizes": {…}}`, and prints one line
of figures for each, until its input ends. The same file runs every system, so that all are measured alike.
"""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from systems import System


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a system prints goes to the log

    def answer(**what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    import tasks
    from orphans import adopt_orphans
    from systems import open_system

    adopt_orphans()
    system: System = open_system(name)
    try:
        system.start()
        assert system.submit(tasks.square, 3).result() == 9
        answer(ready=True)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer(figures=do(system, request["workload"], request.get("sizes", {})))
            except Exception as error:
                import traceback

                traceback.print_exc()
                answer(error=f"{type(error).__name__}: {error}"[:500])
    finally:
        system.stop()


def do(system: "System", workload: str, sizes: dict[str, Any]) -> dict[str, Any]:
    if workload == "settle":
        system.settle()
        return {}
    if workload == "versions":
        return system.versions()
    import workloads

    return workloads.run(system, workload, sizes)


if __name__ == "__main__":
    main(sys.argv[1])
