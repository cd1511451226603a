"""What only the state in memory does: page bytes beyond the limit go to files, which go with their job."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from fallow.model.changes import AddInputs, AddJob, AddResults, DeleteJob
from fallow.state.memory import SPILL_BYTES, MemoryState

LARGE = SPILL_BYTES * 2


@pytest.fixture
def state(tmp_path):
    state = MemoryState(tmp_path, limit_bytes=LARGE)
    state.recover()
    yield state
    state.close()


def spilled_bytes(folder):
    """Return the size of each nameless file in `folder` that this process has open."""
    sizes = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(handle)
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            sizes.append(handle.stat().st_size)
    return sorted(sizes)


@contextmanager
def files_up_to(size):
    """Let no file of this process grow beyond `size`: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(state, make):
    """Bring the memory over its limit."""
    state.commit([AddJob(make.spec(1)), AddJob(make.spec(2)), AddInputs(make.inputs(1, 0, 1, b"a" * (LARGE + 1)))])


def test_pages_beyond_the_limit_go_to_a_file_and_come_back(state, make, tmp_path):
    fill(state, make)
    assert spilled_bytes(tmp_path) == []
    data = [os.urandom(LARGE) for _ in range(4)]
    state.commit([AddInputs(make.inputs(2, 0, 5, data[0])), AddInputs(make.inputs(2, 5, 9, b"small"))])
    state.commit([AddResults(make.job_id(2), (make.stored(0, 2, data=data[1]), make.stored(2, 4, data=data[2])))])
    state.commit([AddInputs(make.inputs(1, 1, 2, data[3]))])
    assert spilled_bytes(tmp_path) == [LARGE, 3 * LARGE]
    assert [page.data for page in state.input_pages(make.job_id(2), 0, 9)] == [data[0], b"small"]
    assert [page.data for page in state.input_pages(make.job_id(1), 1, 2)] == [data[3]]
    pages, after = state.result_pages(make.job_id(2), [(0, 9)], limit_bytes=LARGE)
    assert ([stored.page.data for stored in pages], after) == ([data[1]], 2)
    pages, after = state.result_pages(make.job_id(2), [(0, 9)], after=after, limit_bytes=LARGE)
    assert ([stored.page.data for stored in pages], after) == ([data[2]], None)


def test_a_deleted_job_gives_its_room_back(state, make, tmp_path):
    fill(state, make)
    state.commit([AddInputs(make.inputs(2, 0, 5, b"x" * LARGE))])
    state.commit([DeleteJob(make.job_id(2))])
    assert spilled_bytes(tmp_path) == []
    state.commit([DeleteJob(make.job_id(1)), AddJob(make.spec(3))])
    state.commit([AddInputs(make.inputs(3, 0, 5, b"x" * LARGE))])  # memory has room again
    assert spilled_bytes(tmp_path) == []
    assert state.input_pages(make.job_id(3), 0, 5)[0].data == b"x" * LARGE


def test_files_have_no_name_and_go_with_the_state(state, make, tmp_path):
    fill(state, make)
    state.commit([AddInputs(make.inputs(2, 0, 5, b"x" * LARGE))])
    assert list(tmp_path.iterdir()) == []
    state.close()
    assert spilled_bytes(tmp_path) == []


def test_the_same_bytes_in_two_jobs_are_kept_apart(state, make):
    fill(state, make)
    data = os.urandom(LARGE)
    state.commit([
        AddInputs(make.inputs(2, 0, 5, data)), AddInputs(make.inputs(2, 5, 6, data)), AddInputs(make.inputs(1, 1, 2, data)),
    ])  # fmt: skip
    state.commit([DeleteJob(make.job_id(1))])
    assert [page.data for page in state.input_pages(make.job_id(2), 0, 9)] == [data, data]


def test_a_file_that_can_not_grow_refuses_the_whole_group(state, make):
    fill(state, make)
    data = os.urandom(LARGE)
    state.commit([AddInputs(make.inputs(2, 0, 5, data))])
    with files_up_to(2 * LARGE + 100), pytest.raises(OSError, match="File too large"):
        state.commit([
            AddJob(make.spec(3)), AddInputs(make.inputs(2, 5, 6, data)), AddInputs(make.inputs(2, 6, 7, data)),
        ])  # fmt: skip
    recovered = state.recover()
    assert [(job.spec.id, job.accepted) for job in recovered.jobs] == [(make.job_id(1), 1), (make.job_id(2), 5)]
    other = os.urandom(LARGE)
    state.commit([AddInputs(make.inputs(2, 5, 6, other))])
    assert [page.data for page in state.input_pages(make.job_id(2), 0, 9)] == [data, other]


def test_a_folder_that_is_gone_refuses_the_whole_group(tmp_path, make):
    state = MemoryState(tmp_path / "missing", limit_bytes=0)
    state.commit([AddJob(make.spec(1)), AddInputs(make.inputs(1, 0, 1))])
    with pytest.raises(FileNotFoundError):
        state.commit([AddJob(make.spec(2)), AddInputs(make.inputs(1, 1, 2, b"x" * LARGE))])
    assert [job.accepted for job in state.recover().jobs] == [1]
