"""A slot in a sandbox sees the blobs and sources that it was given, and none of others."""

import io
import zipfile

import pytest

from fallow.model.ids import Digest
from fallow.model.requirements import Requirements

pytestmark = pytest.mark.slow

LEVELS = [
    "confined",
    pytest.param("bubblewrap", marks=pytest.mark.service("bubblewrap")),
    pytest.param("container", marks=pytest.mark.service("dockerd")),
]


@pytest.fixture(params=LEVELS)
def level(request):
    return request.param


def archive(name, text):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as zipped:
        zipped.writestr(f"{name}/__init__.py", "")
        zipped.writestr(f"{name}/part.py", text)
        zipped.writestr(f"{name}/data.txt", text)
    return data.getvalue()


def links(folder):
    return {path.name for path in folder.glob("slots/*-given/*/*")}


async def test_blobs_and_sources_of_another_user_can_be_neither_listed_nor_read(contained, hub, hostile, tmp_path):
    secret = b"the-secret-of-anna" * 100_000
    ref = hub.put_object(secret)
    sources = hub.put(archive("annas", "SECRET = 'the-secret-of-anna'"))
    folder = tmp_path / "node"
    async with contained.node(slots=2, cores=2):
        used = lambda held: (len(held), __import__("annas.part").part.SECRET)  # noqa: E731
        assert await contained.run(used, ref, owner="anna", sources={"annas": sources}) == (
            len(secret),
            "the-secret-of-anna",
        )
        blob, unpacked = folder / "cache" / ref.digest, folder / "sources" / sources
        assert blob.exists()
        assert (unpacked / "annas" / "part.py").exists()
        (annas,) = [slot for slot in hub.slots() if slot.owner == "anna"]
        given = annas.process.folder.with_name(f"{annas.process.folder.name}-given")
        assert (given / "cache" / ref.digest).stat().st_ino == blob.stat().st_ino  # no copy
        paths = [blob, blob.parent, unpacked, unpacked / "annas", unpacked / "annas" / "part.py", unpacked.parent]
        paths += [given, given / "cache", given / "cache" / ref.digest, given / "sources" / sources / "annas"]
        paths += [annas.process.folder]
        got = await contained.run(hostile.read, [str(path) for path in paths], owner="bert")
        assert [each for each in got if each[1] != "[]"] == []
        assert await contained.run(hostile.find_bytes, "the-secret-of-anna", str(folder), owner="bert") == []
        # the same blob and the same sources, to one who has them, too
        assert await contained.run(used, ref, owner="bert", sources={"annas": sources}) == (
            len(secret),
            "the-secret-of-anna",
        )


async def test_what_was_given_stays_when_the_cache_drops_it_and_goes_with_its_job(contained, hub, tmp_path):
    ref = hub.put_object(b"x" * 2_000_000)
    folder = tmp_path / "node"
    async with contained.node() as agent:
        spec = hub.job(
            ["map"], [lambda i, ref=ref: (i, len(ref))], range(4), requirements=Requirements(sandbox=contained.level)
        )
        hub.grant(spec, 0, 2)
        await hub.until(lambda: len(hub.settled(spec)) == 2)
        assert ref.digest in links(folder)
        agent._blobs._cache.drop(Digest(ref.digest))
        assert not (folder / "cache" / ref.digest).exists()
        hub.grant(spec, 2, 4, with_spec=False)
        await hub.finish(spec, 4)
        assert hub.values(spec) == {i: (i, 2_000_000) for i in range(4)}
        agent._dispatcher.forget(spec.id)
        assert ref.digest not in links(folder)
        assert await contained.run(lambda ref: len(ref), ref) == 2_000_000  # given anew
    assert not (folder / "slots").exists()


async def test_large_pages_go_when_they_are_done(contained, hub, tmp_path):
    folder = tmp_path / "node"
    async with contained.node():
        items = [bytes([i]) * 1_000_000 for i in range(4)]
        spec = hub.job(["map"], [len], items, page_items=1, requirements=Requirements(sandbox=contained.level))
        await hub.run(spec, 4)
        assert hub.values(spec) == dict.fromkeys(range(4), 1_000_000)
        assert all(len(hub.pages[spec.id][i].blob) == 64 for i in range(4))
        assert links(folder) == set()


async def test_where_nothing_can_be_linked_it_is_said_and_tasks_go_elsewhere(contained, hub, monkeypatch):
    ref = hub.put_object(b"x" * 2_000_000)
    from fallow.node import given_files

    def refuse(path, place):
        raise OSError(1, "Operation not permitted")

    async with contained.node():
        await hub.slots_ready()
        monkeypatch.setattr(given_files, "_link", refuse)
        failure = await contained.run(len, ref)
        assert failure.kind == "environment"
        assert "its files can't be given to a slot" in failure.message
        monkeypatch.undo()
        assert await contained.run(len, ref) == 2_000_000
