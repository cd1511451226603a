"""What a killed agent leaves in its folder goes when the next one starts."""

import pytest

pytestmark = pytest.mark.slow


async def test_results_and_unpacked_sources_of_an_earlier_agent_go_before_slots_start(hub):
    node = hub.folder / "node"
    left = [
        node / "sources" / ("d" * 64) / "module.py",
        node / "sources" / "partial-1" / "half.py",
        node / "slots" / "77" / "r",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    async with hub.node():
        await hub.slots_ready()
        assert [path for path in left if path.exists()] == []
        assert not any((node / "sources").iterdir())
