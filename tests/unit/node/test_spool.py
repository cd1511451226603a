import pytest

from fallow.model.failure import Failure
from fallow.model.page import ResultPage
from fallow.node import spool as spool_module
from fallow.node.spool import Spool

JOB = "a" * 32


def page(start, data=b"data"):
    return ResultPage(start, start + 1, data, failures=(Failure(index=start, kind="raised", exception=b"\x80"),))


def contents(spool):
    return [(spool.get(s).lease, spool.get(s).job, spool.get(s).pages()) for s in spool.serials()]


def opened(folder):
    spool = Spool(folder)
    spool.open()
    return spool


def test_records_come_back_in_order_after_a_restart(tmp_path):
    spool = opened(tmp_path)
    for i in range(5):
        spool.add(i, JOB, (page(i), page(i + 100)))
    before = contents(spool)
    assert contents(opened(tmp_path)) == before  # killed: never closed
    spool.close()


def test_a_torn_record_is_dropped_and_the_rest_kept(tmp_path):
    spool = opened(tmp_path)
    for i in range(3):
        spool.add(i, JOB, (page(i),))
    spool.close()
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes()[:-2])
    assert [lease for lease, _, _ in contents(opened(tmp_path))] == [0, 1]


def test_files_go_when_all_in_them_is_acknowledged(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 200)
    spool = opened(tmp_path)
    serials = [spool.add(i, JOB, (page(i),)) for i in range(20)]
    assert len(list(tmp_path.iterdir())) > 3
    for serial in serials:
        spool.acknowledge(serial)
        spool.acknowledge(serial)
    assert len(list(tmp_path.iterdir())) == 1, "but for the one that is written to"
    assert len(spool) == 0
    spool.close()
    assert not list(tmp_path.iterdir())
    spool.add(1, JOB, (page(1),))
    assert len(contents(opened(tmp_path))) == 1
    spool.close()


def test_results_that_come_one_by_one_share_a_file_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "REUSED_BYTES", 1000)
    spool = opened(tmp_path)
    sizes, names = [], set()
    for i in range(50):
        serial = spool.add(i, JOB, (page(i),))
        names |= {path.name for path in tmp_path.iterdir()}
        spool.acknowledge(serial)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert len(names) <= 6
    assert max(sizes) < 1000
    serial = spool.add(50, JOB, (page(50),))
    assert contents(opened(tmp_path))[-1] == (50, JOB, (page(50),))  # killed: it is there, behind what is sent twice
    spool.acknowledge(serial)
    spool.close()
    assert not list(tmp_path.iterdir())


def test_beyond_the_memory_limit_pages_are_read_from_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "MEMORY_BYTES", 1000)
    spool = opened(tmp_path)
    for i in range(10):
        spool.add(i, JOB, (page(i, bytes([i]) * 400),))
    assert [pages[0].data for _, _, pages in contents(spool)] == [bytes([i]) * 400 for i in range(10)]
    for serial in spool.serials():
        spool.acknowledge(serial)
    assert spool._memory_bytes == 0
    spool.close()


def test_in_memory_it_needs_no_folder():
    spool = opened(None)
    serial = spool.add(1, JOB, (page(1),))
    assert contents(spool) == [(1, JOB, (page(1),))]
    spool.acknowledge(serial)
    assert spool.serials() == []


def test_a_full_disk_is_told_and_the_record_kept_in_memory(tmp_path):
    spool = opened(tmp_path / "spool")
    (tmp_path / "spool").rmdir()
    with pytest.raises(OSError):
        spool.add(1, JOB, (page(1),))
    assert contents(spool) == [(1, JOB, (page(1),))]
