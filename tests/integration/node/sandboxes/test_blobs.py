"""Blobs reach a task in a sandbox, whether they come over the link or lie in files of a hub on the same computer."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shares", [False, True])
async def test_large_inputs_and_refs_reach_a_task(contained, hub, shares):
    hub.shares = shares
    ref = hub.put_object(b"x" * 2_000_000)
    async with contained.node():
        assert await contained.run(lambda large, ref: (len(large), large[0], len(ref)), b"y" * 3_000_000, ref) == (
            3_000_000,
            ord("y"),
            2_000_000,
        )
        assert await contained.run(lambda: b"z" * 3_000_000) == b"z" * 3_000_000
