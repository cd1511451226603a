"""What every `BlobStore` does, against local files and object stores; then what only local files can show."""

import errno
import os
import stat
import time

import pytest
from blake3 import blake3
from obstore.store import LocalStore, MemoryStore

from fallow.model.errors import BadRequest, NotFound, StateError, Unavailable
from fallow.state.blobs import LocalBlobs, digest_of_file
from fallow.state.object_store import ObjectStoreBlobs, open_object_store
from fallow.state.quick_blobs import QuickBlobs

NO_DIGESTS = ["", "..", "../../etc/passwd", "a" * 63, "a" * 65, "A" * 64, "/" * 64, "a" * 64 + "\n", "é" * 64, "g" * 64]


def digest_of(data):
    return blake3(data).hexdigest()


@pytest.fixture(params=["durable", "local", "quick", "quick and full", "memory store", "folder store"])
def blobs(request, tmp_path, monkeypatch):
    if request.param.startswith("quick"):
        has_room = "full" not in request.param
        monkeypatch.setattr("fallow.state.quick_blobs.has_room", lambda _folder, _size: has_room)
        return QuickBlobs(tmp_path / "quick", LocalBlobs(tmp_path / "roomy", durable=False))
    if request.param == "durable":
        return LocalBlobs(tmp_path / "local")
    if request.param == "local":
        return LocalBlobs(tmp_path / "local", durable=False)
    if request.param == "memory store":
        return ObjectStoreBlobs(MemoryStore(), tmp_path / "cache")
    return ObjectStoreBlobs(LocalStore(tmp_path / "store", mkdir=True), tmp_path / "cache")


@pytest.mark.parametrize("data", [b"", b"hello", b"x" * 3_000_000])
def test_bytes_are_kept_under_their_digest(blobs, data):
    digest = blobs.keep_bytes(data)
    assert digest == digest_of(data)
    assert blobs.keep_bytes(data) == digest
    assert blobs.size(digest) == len(data)
    assert blobs.path(digest).read_bytes() == blobs.read(digest) == data
    assert blobs.read_at(digest, 2, 2) == data[2:4]
    assert blobs.read_at(digest, len(data), 10) == b""


def test_an_unknown_blob_is_not_there(blobs):
    unknown = digest_of(b"unknown")
    assert blobs.path(unknown) is None
    assert blobs.size(unknown) is None
    blobs.delete(unknown)
    for read in (blobs.read, lambda digest: blobs.read_at(digest, 0, 1)):
        with pytest.raises(NotFound, match=unknown):
            read(unknown)


def test_a_deleted_blob_is_gone_and_may_come_back(blobs):
    digest = blobs.keep_bytes(b"data")
    path = blobs.path(digest)
    blobs.delete(digest)
    assert (blobs.path(digest), blobs.size(digest), path.exists()) == (None, None, False)
    assert blobs.keep_bytes(b"data") == digest
    assert blobs.read(digest) == b"data"


def test_blobs_that_were_stored_longer_ago_are_named(blobs, tmp_path):
    first, second = blobs.keep_bytes(b"1"), blobs.keep_bytes(b"2")
    blobs.incoming.mkdir(parents=True, exist_ok=True)
    file = blobs.incoming / "old"
    file.write_bytes(b"3")
    os.utime(file, (0, 0))
    blobs.adopt(file, adopted := digest_of(b"3"))
    assert {digest for part in blobs.stored(older_than_s=-60) for digest in part} == {first, second, adopted}
    assert not [digest for part in blobs.stored(older_than_s=60) for digest in part], (
        "its content is old, the blob is not"
    )


def test_blobs_belong_to_the_first_state_that_claims_them(blobs):
    assert blobs.claim(1)
    assert blobs.claim(1)
    assert not blobs.claim(2)
    assert not any(blobs.stored(older_than_s=-60))


@pytest.mark.parametrize("name", NO_DIGESTS)
def test_what_is_no_digest_is_refused_everywhere(blobs, name, tmp_path):
    incoming = blobs.incoming / "file"
    blobs.incoming.mkdir(parents=True)
    incoming.write_bytes(b"x")
    for call in (
        blobs.path, blobs.size, blobs.read, blobs.delete, lambda name: blobs.read_at(name, 0, 1),
        lambda name: blobs.writer(name, 5), lambda name: blobs.adopt(incoming, name),
    ):  # fmt: skip
        with pytest.raises(BadRequest, match="not a digest"):
            call(name)


def test_an_upload_in_parts(blobs):
    data = os.urandom(1000)
    writer = blobs.writer(digest_of(data), len(data))
    assert (writer.offset, writer.size) == (0, 1000)
    writer.write(0, data[:400])
    assert writer.offset == 400
    assert blobs.size(digest_of(data)) is None
    writer.write(400, data[400:])
    assert blobs.path(digest_of(data)) is None  # not before it is verified
    writer.finish()
    assert blobs.read(digest_of(data)) == data


def test_an_empty_upload(blobs):
    blobs.writer(digest_of(b""), 0).finish()
    assert blobs.size(digest_of(b"")) == 0


def test_an_upload_that_broke_off_goes_on(blobs):
    data = os.urandom(1000)
    blobs.writer(digest_of(data), len(data)).write(0, data[:600])
    writer = blobs.writer(digest_of(data), len(data))
    assert writer.offset == 600
    writer.write(500, data[500:700])  # what is there already is skipped
    assert writer.offset == 700
    writer.write(700, data[700:])
    writer.finish()
    assert blobs.read(digest_of(data)) == data


def test_an_upload_of_what_is_there_needs_no_bytes(blobs):
    digest = blobs.keep_bytes(b"data")
    writer = blobs.writer(digest, 4)
    assert writer.offset == 4
    writer.finish()
    assert blobs.read(digest) == b"data"


@pytest.mark.parametrize(("offset", "data"), [(1, b"x"), (0, b"x" * 11), (-1, b"x"), (10, b"x")])
def test_bytes_that_do_not_fit_are_refused(blobs, offset, data):
    writer = blobs.writer(digest_of(b"y" * 10), 10)
    with pytest.raises(BadRequest, match="do not fit"):
        writer.write(offset, data)
    writer.write(0, b"y" * 10)
    writer.finish()


def test_an_upload_with_bytes_missing_is_refused_and_may_go_on(blobs):
    writer = blobs.writer(digest_of(b"y" * 10), 10)
    writer.write(0, b"y" * 9)
    with pytest.raises(BadRequest, match="9 of 10 bytes"):
        writer.finish()
    writer.write(9, b"y")
    writer.finish()


def test_an_upload_of_other_bytes_is_refused_and_starts_over(blobs):
    digest = digest_of(b"right")
    writer = blobs.writer(digest, 5)
    writer.write(0, b"wrong")
    with pytest.raises(BadRequest, match="not the bytes of blob"):
        writer.finish()
    assert blobs.size(digest) is None
    writer = blobs.writer(digest, 5)
    assert writer.offset == 0
    writer.write(0, b"right")
    writer.finish()
    assert blobs.read(digest) == b"right"


def test_a_wrong_size_is_refused(blobs):
    with pytest.raises(BadRequest, match="-1 bytes"):
        blobs.writer(digest_of(b""), -1)
    writer = blobs.writer(digest_of(b"right"), 3)
    writer.write(0, b"rig")
    with pytest.raises(BadRequest, match="not the bytes of blob"):
        writer.finish()


def test_a_second_writer_revokes_the_first(blobs):
    digest = digest_of(b"right")
    first = blobs.writer(digest, 5)
    first.write(0, b"ri")
    second = blobs.writer(digest, 5)
    with pytest.raises(BadRequest, match="taken over"):
        first.write(2, b"ght")
    with pytest.raises(BadRequest, match="taken over"):
        first.finish()
    second.write(2, b"ght")
    second.finish()
    with pytest.raises(BadRequest, match="has finished"):
        second.write(5, b"")
    assert blobs.read(digest) == b"right"


def put_incoming(blobs, data=b"data", name="file"):
    blobs.incoming.mkdir(parents=True, exist_ok=True)
    path = blobs.incoming / name
    path.write_bytes(data)
    return path


def test_a_file_is_adopted(blobs):
    path = put_incoming(blobs)
    path.chmod(0o444)
    blobs.adopt(path, digest_of(b"data"))
    assert not path.exists()
    assert blobs.read(digest_of(b"data")) == b"data"
    blobs.adopt(put_incoming(blobs), digest_of(b"data"))
    assert list(blobs.incoming.iterdir()) == []


def test_a_file_with_another_digest_is_refused_and_gone(blobs):
    path = put_incoming(blobs)
    with pytest.raises(BadRequest, match="not the bytes of blob"):
        blobs.adopt(path, digest_of(b"other"))
    assert not path.exists()
    assert blobs.size(digest_of(b"other")) is None


def test_only_plain_files_right_in_incoming_are_adopted(blobs, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"data")
    put_incoming(blobs, name="other")
    (blobs.incoming / "folder").mkdir()
    (blobs.incoming / "folder" / "inner").write_bytes(b"data")
    (blobs.incoming / "link").symlink_to(outside)
    (blobs.incoming / "way").symlink_to(tmp_path)
    os.mkfifo(blobs.incoming / "pipe")
    names = ["../outside", "folder", "folder/inner", "link", "way/outside", "pipe", "missing", "."]
    for path in [outside, *(blobs.incoming / name for name in names)]:
        with pytest.raises(BadRequest):
            blobs.adopt(path, digest_of(b"data"))
    assert outside.read_bytes() == b"data"
    assert blobs.size(digest_of(b"data")) is None


def test_old_partials_are_swept_and_young_ones_kept(blobs, tmp_path):
    digests = [digest_of(b"old"), digest_of(b"young")]
    for digest in digests:
        blobs.writer(digest, 100).write(0, b"some")
    kept = blobs.keep_bytes(b"kept")
    put_incoming(blobs)
    blobs.sweep_partials(3600)
    assert [blobs.writer(digest, 100).offset for digest in digests] == [4, 4]
    assert len(list(blobs.incoming.iterdir())) == 1
    past = time.time() - 7200
    old = next(tmp_path.rglob(digests[0]))
    for path in (old, next(blobs.incoming.iterdir())):
        os.utime(path, (past, past))
    blobs.sweep_partials(3600)
    assert [blobs.writer(digest, 100).offset for digest in digests] == [0, 4]
    assert list(blobs.incoming.iterdir()) == []
    assert blobs.read(kept) == b"kept"


def test_free_bytes(blobs, tmp_path):
    assert 0 < blobs.free_bytes() < 1 << 60


def test_local_bytes(blobs):
    assert blobs.local_bytes() == 0
    kept = [blobs.keep_bytes(data) for data in (b"one", b"three", b"")]
    assert blobs.local_bytes() == 8
    blobs.delete(kept[0])
    assert blobs.local_bytes() == 5


def test_blobs_are_read_only_files_found_by_the_next_process(tmp_path):
    digest = LocalBlobs(tmp_path).keep_bytes(b"data")
    path = LocalBlobs(tmp_path).path(digest)
    assert path == tmp_path / "blobs" / digest[:2] / digest
    assert stat.S_IMODE(path.stat().st_mode) & 0o222 == 0
    assert (tmp_path / "blobs").stat().st_mode & 0o077 == 0


def test_nothing_is_left_over_beside_the_blobs(tmp_path):
    blobs = LocalBlobs(tmp_path)
    blobs.keep_bytes(b"a")
    writer = blobs.writer(digest_of(b"b"), 1)
    writer.write(0, b"b")
    writer.finish()
    writer = blobs.writer(digest_of(b"c"), 1)
    writer.write(0, b"d")
    with pytest.raises(BadRequest):
        writer.finish()
    assert list((tmp_path / "partial").iterdir()) == []


def test_files_and_names_are_synced_before_a_blob_is_acknowledged(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), real(handle)))
    blobs = LocalBlobs(tmp_path)
    path = blobs.path(blobs.keep_bytes(b"data"))
    file, folder, above, top = (each.stat().st_ino for each in (path, path.parent, path.parent.parent, tmp_path))
    assert synced.index(top) < synced.index(above) < synced.index(folder)
    assert synced.index(file) < synced.index(folder)
    assert synced[-1] == folder
    synced.clear()
    LocalBlobs(tmp_path / "quick", durable=False).keep_bytes(b"data")
    assert synced == []


def test_a_disk_that_refuses_leaves_nothing(tmp_path, monkeypatch):
    blobs = LocalBlobs(tmp_path)

    def refuse(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs.keep_bytes(b"before")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        blobs.keep_bytes(b"data")
    monkeypatch.undo()
    assert blobs.size(digest_of(b"data")) is None
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_partial_longer_than_the_blob_starts_over(tmp_path):
    blobs = LocalBlobs(tmp_path)
    blobs.writer(digest_of(b"abc"), 100).write(0, b"x" * 50)
    assert blobs.writer(digest_of(b"abc"), 3).offset == 0


def test_digest_of_file(tmp_path):
    (tmp_path / "f").write_bytes(b"data")
    assert digest_of_file(tmp_path / "f") == digest_of(b"data")


def test_the_cache_of_an_object_store_may_be_deleted(tmp_path):
    store = MemoryStore()
    digest = ObjectStoreBlobs(store, tmp_path / "a").keep_bytes(b"data" * 1000)
    other = ObjectStoreBlobs(store, tmp_path / "b")
    assert other.size(digest) == 4000
    assert other.read_at(digest, 4, 4) == b"data"
    assert other.path(digest).is_relative_to(tmp_path / "b")


def test_a_damaged_object_is_never_handed_out(tmp_path):
    folder = tmp_path / "store"
    digest = ObjectStoreBlobs(LocalStore(folder, mkdir=True), tmp_path / "a").keep_bytes(b"data")
    (folder / "blobs" / digest[:2] / digest).write_bytes(b"tada")
    with pytest.raises(BadRequest, match="not the bytes of blob"):
        ObjectStoreBlobs(LocalStore(folder), tmp_path / "b").read(digest)


def test_the_cache_keeps_what_was_used_last_within_its_limit(tmp_path):
    blobs = ObjectStoreBlobs(MemoryStore(), tmp_path, cache_bytes=2500)
    digests = [blobs.keep_bytes(bytes([number]) * 1000) for number in range(4)]
    now = time.time()
    for age, digest in zip((400, 300, 200, 0), digests, strict=True):
        os.utime(blobs.path(digest), (now - age, now - age))
    cached = lambda: {path.name for path in tmp_path.glob("blobs/*/*")}
    blobs.sweep_partials(1000)
    assert cached() == set(digests)  # none was unused for that long
    blobs.sweep_partials(100)
    assert cached() == set(digests[2:])
    assert [blobs.read(digest) for digest in digests] == [bytes([number]) * 1000 for number in range(4)]


@pytest.mark.slow
def test_an_object_store_that_is_gone_is_unavailable(tmp_path):
    from obstore.store import S3Store

    store = S3Store(
        "bucket", endpoint="http://127.0.0.1:1", client_options={"allow_http": True}, skip_signature=True,
        retry_config={"max_retries": 0},
    )  # fmt: skip
    blobs = ObjectStoreBlobs(store, tmp_path)
    for call in (lambda: blobs.keep_bytes(b"data"), lambda: blobs.size(digest_of(b"data"))):
        with pytest.raises(Unavailable, match="object store"):
            call()


def test_an_upload_that_the_store_refused_is_repeated(tmp_path):
    folder = tmp_path / "store"
    blobs = ObjectStoreBlobs(LocalStore(folder, mkdir=True), tmp_path / "cache")
    digest = digest_of(b"data")
    (folder / "blobs").write_text("in the way")
    for _ in range(2):
        writer = blobs.writer(digest, 4)
        writer.write(writer.offset, b"data"[writer.offset :])
        with pytest.raises(Unavailable):
            writer.finish()
    (folder / "blobs").unlink()
    assert blobs.path(digest) is None  # although it is in the cache
    writer = blobs.writer(digest, 4)
    assert writer.offset == 4
    writer.finish()
    assert blobs.read(digest) == b"data"


def test_a_url_that_names_no_store_is_refused(tmp_path):
    with pytest.raises(StateError, match="can't use the object store"):
        open_object_store("nonsense://bucket", tmp_path)
    assert open_object_store("memory:///", tmp_path).size(digest_of(b"")) is None


def test_blobs_in_memory_give_way_to_a_folder_with_room(tmp_path, monkeypatch):
    monkeypatch.setattr("fallow.state.quick_blobs.has_room", lambda _folder, _size: True)
    quick = QuickBlobs(tmp_path / "quick", LocalBlobs(tmp_path / "roomy", durable=False, trusting=True))
    first = quick.keep_bytes(b"first")
    assert quick.path(first).is_relative_to(tmp_path / "quick")
    monkeypatch.setattr("fallow.state.quick_blobs.has_room", lambda _folder, _size: False)  # it fills up
    second = quick.keep_bytes(b"second")
    quick.incoming.mkdir()
    (quick.incoming / "third").write_bytes(b"third")
    quick.adopt(quick.incoming / "third", third := digest_of(b"third"))
    writer = quick.writer(fourth := digest_of(b"fourth"), 6)
    writer.write(0, b"fourth")
    writer.finish()
    for digest, data in ((second, b"second"), (third, b"third"), (fourth, b"fourth")):
        assert quick.path(digest).is_relative_to(tmp_path / "roomy")
        assert quick.read(digest) == data
    assert quick.keep_bytes(b"first") == first
    assert quick.local_bytes() == len(b"firstsecondthirdfourth") + len(b"first")
    for digest in (first, second, third, fourth):
        quick.delete(digest)
        assert quick.path(digest) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_of_this_process_are_taken_where_they_lie_and_keep_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr("fallow.state.quick_blobs.has_room", lambda _folder, _size: True)
    quick = QuickBlobs(tmp_path / "quick", LocalBlobs(tmp_path / "roomy", durable=False, trusting=True))
    for place in ("quick", "roomy"):
        path = tmp_path / place / "node" / "file"
        path.parent.mkdir(parents=True)
        path.write_bytes(place.encode())
        name = digest_of(place.encode())
        for _ in range(2):  # again after a broken link
            quick.adopt(path, name)
        assert quick.path(name).is_relative_to(tmp_path / place)
        assert quick.path(name).stat().st_ino == path.stat().st_ino  # no copy
        quick.delete(name)
        assert path.read_bytes() == place.encode()
    doubting = QuickBlobs(tmp_path / "other", LocalBlobs(tmp_path / "roomy", durable=False))
    with pytest.raises(BadRequest, match="is not in"):
        doubting.adopt(path, name)


def test_a_blob_that_is_set_aside_is_still_there(tmp_path):
    blobs = LocalBlobs(tmp_path)
    digest = blobs.keep_bytes(b"x" * 3_000_000)
    blobs.set_aside(digest)
    assert blobs.read(digest) == b"x" * 3_000_000
    blobs.set_aside(digest_of(b"unknown"))


def test_a_store_that_trusts_its_process_takes_files_as_they_are_called(tmp_path):
    blobs = LocalBlobs(tmp_path, trusting=True)
    blobs.adopt(put_incoming(blobs), digest_of(b"other"))
    assert blobs.read(digest_of(b"other")) == b"data"
