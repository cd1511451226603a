import pytest

from fallow.demo.search import MAX_TEXT_BYTES, Document, distance, profile, read_documents, standard_library


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pipes.txt").write_text("pipes carry water; water carries ships")
    (tmp_path / "b.md").write_text("stars are far away")
    (tmp_path / "c.bin").write_bytes(b"water water")
    (tmp_path / "d.txt").write_bytes(b"water \xff\xfe pipes")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "e.py").write_text("water")
    (tmp_path / "long.txt").write_bytes(b"water " * (MAX_TEXT_BYTES // 6 + 1))
    return tmp_path


def test_texts_are_read_in_order_of_their_paths(folder):
    assert [each.name for each in read_documents(folder)] == ["a/pipes.txt", "b.md", "d.txt"]


def test_no_more_texts_than_asked_for(folder):
    assert [each.name for each in read_documents(folder, limit=1)] == ["a/pipes.txt"]
    assert list(read_documents(folder, limit=0)) == []


def test_distance_is_0_for_the_same_words_and_1_for_none_in_common():
    reference = profile("water and pipes and water")
    assert distance(reference, Document("same", "and pipes, Water: water and")) == pytest.approx(0, abs=1e-12)
    assert distance(reference, Document("other", "stars far away")) == 1
    assert 0 < distance(reference, Document("half", "water stars")) < 1


def test_a_text_without_words_is_far_from_everything():
    assert profile("12 + 3 = ?") == {}
    assert distance(profile("water"), Document("empty", "")) == 1


@pytest.mark.slow
def test_the_standard_library_is_there():
    names = {each.name for each in read_documents(standard_library())}
    assert {"concurrent/futures/process.py", "abc.py"} <= names
