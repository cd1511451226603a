"""What a node's page shows, worked out from what it says of itself. No HTML here."""

import msgspec

from fallow.hub.core.hub import Hub
from fallow.hub.web.overview import node_row
from fallow.model.levels import LEVELS


class NodePage(msgspec.Struct, frozen=True):
    name: str
    state: str
    facts: list[tuple[str, str]]
    notes: list[tuple[str, str]]
    """Subjects and texts: each level of sandbox, then all else."""


def look_at_node(hub: Hub, node_id: str) -> NodePage | None:
    """Return what there is to see of a node; None if there is none."""
    node = next((each for each in hub.nodes() if each.id == node_id), None)
    if node is None:
        return None
    row, info = node_row(node), node.info
    facts = [
        ("Machine", row.machine),
        ("Python", ", ".join(info.pythons)),
        ("Slots", str(info.slots)),
        ("Tags", ", ".join(info.tags) or "none"),
        ("Environments", "built here" if info.builds else "not built here"),
        ("Score", row.score),
        ("Fallow", info.version),
        ("Tasks", f"{row.tasks:,} here, {row.finished} finished"),
    ]
    if row.detail:
        facts.append(("State", row.detail))
    rest = dict(info.notes)
    notes = [
        (f"Sandbox {level}", rest.pop(f"sandbox {level}", "works" if level in info.sandboxes else "does not work"))
        for level in reversed(LEVELS)
    ]
    return NodePage(info.name, row.state, facts, notes + [(name.capitalize(), text) for name, text in rest.items()])
