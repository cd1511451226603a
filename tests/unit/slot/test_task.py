"""What a running task asks of its slot: its folder, when that is sent, how far it is."""

import json
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest

import fallow
from fallow.slot import task
from fallow.slot.checkpoint import look, pack, unpack
from fallow.slot.protocol import COUNTER_BYTES, PROGRESS, RUNNING, SAVED

DEADLINE_S = 60


def put(path, text):
    """Write a file that is never seen half written, as the desk may look at any moment."""
    path.with_suffix(".tmp").write_text(text)
    path.with_suffix(".tmp").rename(path)


class Slot:
    """A desk with what it has sent."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder = folder
        self.counter = memoryview(bytearray(COUNTER_BYTES)).cast("Q")
        self.sent = []
        self.came = threading.Condition()
        self.desk = task.TaskDesk(str(folder), self.counter, self.send)

    def send(self, kind, index, body):
        with self.came:
            self.sent.append((kind, index, body))
            self.came.notify_all()

    def run(self, index, key=1, every_s=0.0):
        self.counter[RUNNING] = index + 1
        self.desk.know(key, every_s)
        self.desk.begin(key)

    def end(self):
        self.counter[RUNNING] = 0
        self.desk.end()

    def of_kind(self, kind):
        return [(index, body) for each, index, body in self.sent if each == kind]

    def until(self, kind, count=1):
        with self.came:
            assert self.came.wait_for(lambda: len(self.of_kind(kind)) >= count, DEADLINE_S), self.sent
            return self.of_kind(kind)

    def saved(self, count=1):
        """Wait for so many checkpoints; return what is in the last one."""
        path = self.until(SAVED, count)[-1][1].decode()
        out = Path(f"{path}-out")
        out.mkdir()
        unpack(path, str(out))
        return {each.name: each.read_text() for each in out.iterdir()}


@pytest.fixture
def slot(tmp_path, monkeypatch):
    monkeypatch.setattr(task, "LOOK_S", 0.01)
    monkeypatch.setattr(task, "LOOK_SHARE", 1.0)  # however long a look takes on a busy computer
    monkeypatch.setenv(task.CHECKPOINT, "")  # put back at the end: a desk sets it
    slot = Slot(tmp_path / "slot")
    yield slot
    slot.end()


@pytest.fixture
def installed(slot, monkeypatch):
    monkeypatch.setattr(task, "_desk", slot.desk)
    return slot


def test_what_stands_still_is_sent_once(slot):
    slot.run(7)
    folder = Path(slot.desk.open())
    assert list(folder.iterdir()) == []
    put(folder / "state", "one")
    assert slot.saved() == {"state": "one"}
    put(folder / "state", "two")
    assert slot.saved(2) == {"state": "two"}
    assert [index for index, _ in slot.of_kind(SAVED)] == [7, 7]
    assert slot.desk.open() == str(folder)


def test_what_changes_all_the_time_is_not_sent_until_it_stands_still(slot):
    slot.run(0)
    folder = Path(slot.desk.open())
    looks = []

    def changing(path):
        (folder / "state").write_text(f"{len(looks)}")
        looks.append(path)
        return look(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "look", changing)
        while len(looks) < 20:
            time.sleep(0.001)
        assert not slot.of_kind(SAVED)
    assert slot.saved() == {"state": (folder / "state").read_text()}


class Folder:
    """A task's folder that is changed before each look, as a program that never rests would."""

    def __init__(self, slot, monkeypatch, change):
        self.path = Path(slot.desk.open())
        self.looks = 0

        def changing(path):
            self.looks += 1
            change(self.path, self.looks)
            return look(path)

        monkeypatch.setattr(task, "look", changing)

    def looked(self, count):
        deadline = time.monotonic() + DEADLINE_S
        while self.looks < count:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def replace(folder, count):
    (folder / "state.tmp").write_text(f"{count} " * 1000 + "whole")
    (folder / "state.tmp").rename(folder / "state")


def test_one_file_that_is_renamed_into_place_is_sent_however_often(slot, monkeypatch):
    slot.run(0)
    put(Path(slot.desk.open(), "mesh"), "stays")
    Folder(slot, monkeypatch, replace)
    for count in (1, 2, 3):
        found = slot.saved(count)
        assert found["mesh"] == "stays"
        assert found["state"].endswith("whole")
    numbers = [int(slot_text(body)) for _, body in slot.of_kind(SAVED)]
    assert numbers == sorted(set(numbers)), "each is a later state than the one before"


def slot_text(body):
    with tarfile.open(body.decode()) as archive:
        return archive.extractfile("state").read().split()[0]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder, count: (folder / "state").write_text(f"{count}" * 99), id="in place"),
        pytest.param(lambda folder, count: (folder / f"state-{count % 2}").write_text(f"{count}"), id="in turns"),
        pytest.param(lambda folder, count: (folder / f"state-{count}").write_text(f"{count}"), id="under new names"),
        pytest.param(
            lambda folder, count: (replace(folder, count), (folder / "log").write_text(f"{count}" * 9)), id="two files"
        ),
    ],
)
def test_what_never_stands_still_else_is_not_sent_and_the_log_says_why(slot, monkeypatch, capfd, change):
    monkeypatch.setattr(task, "BUSY_LOOKS", 20)
    slot.run(3)
    folder = Folder(slot, monkeypatch, change)
    folder.looked(50)
    assert not slot.of_kind(SAVED)
    said = capfd.readouterr().err
    assert said.count("the checkpoint of task 3 is not sent: its folder never stands still ('") == 1
    assert "under a name that ends in .tmp and renamed" in said


def test_a_replaced_file_is_not_sent_as_it_was_long_ago(slot, monkeypatch):
    """What is held open to see whether it is whole is let go where nothing is due."""
    slot.run(0, every_s=1000.0)
    Folder(slot, monkeypatch, replace)
    slot.saved()
    with slot.desk._lock:
        assert slot.desk._task.held is None
    assert len(slot.of_kind(SAVED)) == 1


def test_what_changes_while_it_is_packed_is_thrown_away(slot, monkeypatch):
    slot.run(0)
    folder = Path(slot.desk.open())
    packs = []

    def packed(path, seen, target, held):
        pack(path, seen, target, held)
        packs.append(target)
        if len(packs) == 1:
            (folder / "state").write_text("new")

    monkeypatch.setattr(task, "pack", packed)
    (folder / "state").write_text("old")
    assert slot.saved() == {"state": "new"}
    assert not os.path.exists(packs[0])


def test_a_task_that_saves_itself_is_sent_only_what_it_saved(installed):
    installed.run(0)
    folder = fallow.checkpoint()
    (folder / "state").write_text("one")
    fallow.save_checkpoint()
    assert installed.saved() == {"state": "one"}
    (folder / "state").write_text("half")
    fallow.progress(0.5)
    installed.until(PROGRESS)  # the thread has looked
    assert len(installed.of_kind(SAVED)) == 1
    (folder / "state").write_text("two")
    fallow.save_checkpoint()
    fallow.save_checkpoint()
    assert installed.saved(2) == {"state": "two"}
    assert len(installed.of_kind(SAVED)) == 2


def test_saving_is_no_more_frequent_than_asked_for(installed):
    installed.run(0, every_s=3600)
    for number in range(5):
        (fallow.checkpoint() / "state").write_text(str(number))
        fallow.save_checkpoint()
    assert installed.saved() == {"state": "0"}


def test_each_task_has_a_folder_of_its_own(slot):
    slot.run(0, every_s=3600)
    (Path(slot.desk.open()) / "state").write_text("of task 0")
    slot.counter[RUNNING] = 2  # the next of the same batch
    assert os.listdir(slot.desk.open()) == []
    (Path(slot.desk.open()) / "state").write_text("of task 1")
    slot.end()
    assert not os.path.exists(slot.folder / "checkpoint")
    slot.run(1, key=2)
    assert os.listdir(slot.desk.open()) == []


def test_a_task_goes_on_from_what_was_left_for_it(slot, tmp_path):
    left = tmp_path / "left"
    left.mkdir()
    (left / "state").write_text("70%")
    pack(str(left), look(str(left)), str(tmp_path / "packed"))
    slot.desk.leave(1, 5, str(tmp_path / "packed"))
    slot.run(5)
    folder = Path(slot.desk.open())
    assert (folder / "state").read_text() == "70%"
    slot.desk.note_progress(0.7, "")
    slot.until(PROGRESS)
    assert not slot.of_kind(SAVED)  # it is at the hub already
    slot.end()
    slot.run(5)
    assert os.listdir(slot.desk.open()) == []  # it was for that run


def test_a_checkpoint_that_is_damaged_lets_the_task_begin_anew_and_says_so(slot, tmp_path, capsys):
    (tmp_path / "packed").write_bytes(b"garbage" * 1000)
    slot.desk.leave(1, 5, str(tmp_path / "packed"))
    slot.run(5)
    assert os.listdir(slot.desk.open()) == []
    assert "the checkpoint of task 5 can't be used, so it begins anew" in capsys.readouterr().err


def test_a_folder_that_is_too_much_is_told_once(slot, tmp_path, monkeypatch, capsys):
    from fallow.slot import checkpoint

    monkeypatch.setattr(checkpoint, "MAX_FILES", 3)
    slot.run(0)
    folder = Path(slot.desk.open())
    (tmp_path / "many").mkdir()
    for number in range(5):
        (tmp_path / "many" / str(number)).touch()
    (tmp_path / "many").rename(folder / "many")  # the desk may look at any moment
    for number in range(3):
        slot.desk.note_progress(number / 10, "")
        slot.until(PROGRESS, number + 1)
    (folder / "many").rename(tmp_path / "many")
    put(folder / "state", "few")
    assert slot.saved() == {"state": "few"}
    said = capsys.readouterr().err
    assert said.count("the checkpoint of task 0 is not sent: it holds over 3 files and folders") == 1


def test_progress_is_told_when_it_changes(installed):
    installed.run(3)
    for step in range(1000):
        fallow.progress(step / 1000, "first\n line ")
    fallow.progress(2, "x" * 500)
    while json.loads(installed.until(PROGRESS)[-1][1])[0] != 1.0:
        time.sleep(0.001)
    told = installed.of_kind(PROGRESS)
    assert len(told) < 100
    assert told[-1] == (3, json.dumps([1.0, "x" * 200]).encode())
    with pytest.raises(ValueError, match="not a number"):
        fallow.progress(float("nan"))


def test_a_program_tells_in_a_file(installed):
    installed.run(0)
    named = task.variables()
    assert set(named) == {"FALLOW_CHECKPOINT", "FALLOW_PROGRESS"}
    assert os.listdir(named["FALLOW_CHECKPOINT"]) == []
    Path(named["FALLOW_PROGRESS"]).write_text("30 % warm\nmore")
    assert json.loads(installed.until(PROGRESS)[-1][1]) == [0.3, "warm more"]
    os.unlink(named["FALLOW_PROGRESS"])
    os.symlink("/etc/passwd", named["FALLOW_PROGRESS"])
    put(Path(named["FALLOW_CHECKPOINT"]) / "state", "s")
    assert installed.saved() == {"state": "s"}
    assert len(installed.of_kind(PROGRESS)) == 1
    installed.end()
    installed.run(0)
    assert not os.path.lexists(task.variables()["FALLOW_PROGRESS"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0.5", (0.5, "")),
        ("1", (1.0, "")),
        ("50%", (0.5, "")),
        ("50 % of it", (0.5, "of it")),
        ("0.25 step 3 of 12", (0.25, "step 3 of 12")),
        ("0.25\nstep 3\nof 12", (0.25, "step 3 of 12")),
        ("  7% \n", (0.07, "")),
        ("loading 3 files", (None, "loading 3 files")),
        ("12 files", (None, "12 files")),
        ("-0.5", (None, "-0.5")),
        ("nan", (None, "nan")),
        ("", None),
        (" \n", None),
    ],
)
def test_a_progress_file_is_read_as_people_write_it(text, told):
    assert task.parse_progress(text) == told


def test_outside_of_a_grid_there_is_a_folder_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(task.CHECKPOINT, raising=False)
    monkeypatch.delenv(task.TOLD, raising=False)
    assert fallow.checkpoint().resolve() == tmp_path / "fallow-checkpoint"
    assert (tmp_path / "fallow-checkpoint").is_dir()
    fallow.save_checkpoint()
    fallow.progress(0.5, "nobody hears it")
    monkeypatch.setenv(task.CHECKPOINT, str(tmp_path / "other" / "place"))
    monkeypatch.setenv(task.TOLD, str(tmp_path / "told"))
    assert fallow.checkpoint() == tmp_path / "other" / "place"
    fallow.progress(0.5, "a program of Python")
    assert task.parse_progress((tmp_path / "told").read_text()) == (0.5, "a program of Python")


def test_where_no_task_runs_there_is_no_checkpoint(installed):
    with pytest.raises(RuntimeError, match="no task runs"):
        fallow.checkpoint()
    fallow.progress(0.5)
    assert installed.sent == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_a_task_forked_leaves_the_folder_alone(installed):
    installed.run(0, every_s=3600)
    folder = fallow.checkpoint()
    (folder / "state").write_text("s")
    child = os.fork()
    if child == 0:
        installed.counter[RUNNING] = 9
        good = fallow.checkpoint() == folder and fallow.progress(0.5) is None and fallow.save_checkpoint() is None
        os._exit(0 if good and (folder / "state").exists() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (folder / "state").read_text() == "s"
