import os

import pytest
from blake3 import blake3

from fallow.model.errors import BadRequest
from fallow.model.ids import Digest
from fallow.node.cache import BlobCache, digest_of


def digest(data):
    return blake3(data).hexdigest()


def opened(folder, limit=10**9):
    cache = BlobCache(folder, limit)
    cache.open()
    return cache


def fill(cache, data):
    file = cache.begin(digest(data))
    file.write(0, data)
    cache.finish(digest(data), file)


def test_a_blob_is_received_in_parts_and_found_again(tmp_path):
    data = b"x" * 1000
    cache = opened(tmp_path)
    file = cache.begin(digest(data))
    file.write(0, data[:400])
    file.close()
    file = opened(tmp_path).begin(digest(data))
    assert file.offset == 400
    file.write(300, data[300:])  # overlapping
    cache.finish(digest(data), file)
    assert cache.path(digest(data)).read_bytes() == data
    assert opened(tmp_path).path(digest(data)) is not None


def test_a_gap_is_refused(tmp_path):
    file = opened(tmp_path).begin(digest(b"x"))
    with pytest.raises(BadRequest):
        file.write(5, b"x")
    file.close()


def test_damage_is_refused_and_forgotten(tmp_path):
    cache = opened(tmp_path)
    file = cache.begin(digest(b"right"))
    file.write(0, b"wrong")
    with pytest.raises(BadRequest, match="damaged"):
        cache.finish(digest(b"right"), file)
    assert cache.path(digest(b"right")) is None
    again = cache.begin(digest(b"right"))
    assert again.offset == 0
    again.close()


def test_least_recently_used_blobs_go_first_but_not_needed_ones(tmp_path):
    cache = opened(tmp_path, limit=250)
    blobs = [bytes([i]) * 100 for i in range(4)]
    for data in blobs:
        fill(cache, data)
    cache.path(digest(blobs[1]))
    cache.trim(lambda each: each == digest(blobs[0]))
    assert [cache.path(digest(data)) is not None for data in blobs] == [True, True, False, False]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(map(digest, blobs[:2]))


def test_files_made_here_are_adopted(tmp_path):
    cache = opened(tmp_path / "cache")
    made = tmp_path / "made"
    for _ in range(2):
        made.write_bytes(b"result")
        assert digest_of(made) == digest(b"result")
        cache.adopt(made, digest(b"result"))
        assert not made.exists()
    assert cache.path(digest(b"result")).read_bytes() == b"result"
    cache.remember("f" * 64, tmp_path / "elsewhere")
    assert cache.path("f" * 64) == tmp_path / "elsewhere"
    cache.forget("f" * 64)
    assert cache.path("f" * 64) is None


def test_a_shared_file_keeps_its_first_name(tmp_path):
    from fallow.node.cache import share

    path, place = tmp_path / "cached", tmp_path / "incoming"
    path.write_bytes(b"result, and input of another task")
    place.write_bytes(b"half of an earlier attempt")
    share(path, place)
    assert path.read_bytes() == place.read_bytes() == b"result, and input of another task"
    place.unlink()
    assert path.exists()


def test_what_slots_put_into_memory_stays_there_until_a_sandbox_needs_it(tmp_path):
    cache = BlobCache(tmp_path / "cache", 10_000, tmp_path / "memory")
    cache.open()
    made = tmp_path / "memory" / "slots" / "1" / "result"
    made.parent.mkdir(parents=True)
    for name in (Digest("a" * 64), Digest("b" * 64)):
        made.write_bytes(b"result")
        claimed = cache.claim(made)
        assert claimed.is_relative_to(tmp_path / "memory")
        cache.adopt(claimed, name)
        assert cache.path(name).is_relative_to(tmp_path / "memory")
        assert not cache.has_own(name)  # a sandbox is given links to the cache's disk
    cache.take_over(cache.path("a" * 64), "a" * 64)
    cache.took_over("a" * 64)
    assert cache.has_own("a" * 64)
    assert cache.path("a" * 64).is_relative_to(tmp_path / "cache")
    assert cache.path("a" * 64).read_bytes() == b"result"
    cache.drop("a" * 64)
    cache.drop("b" * 64)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_dropped_blob_is_gone_and_not_counted(tmp_path):
    made = tmp_path / "made"
    made.write_bytes(b"x" * 1000)
    cache = BlobCache(tmp_path / "cache", 10_000)
    cache.open()
    digest = Digest("d" * 64)
    cache.adopt(made, digest)
    assert cache.path(digest).read_bytes() == b"x" * 1000
    cache.drop(digest)
    cache.drop(digest)
    assert cache.path(digest) is None
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_file()]


def test_what_a_killed_agent_left_half_is_gone_once_nobody_goes_on_with_it(tmp_path):
    cache = opened(tmp_path)
    fill(cache, b"whole")
    (tmp_path / f"{digest(b'copied')}.partial").write_bytes(b"cop")
    fetched, abandoned = tmp_path / "partial" / digest(b"1"), tmp_path / "partial" / digest(b"2")
    for path in (fetched, abandoned):
        path.write_bytes(b"half")
    os.utime(abandoned, (0, 0))
    opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [digest(b"whole")]
    assert list((tmp_path / "partial").iterdir()) == [fetched]
