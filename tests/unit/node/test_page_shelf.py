from fallow.model.page import InputPage
from fallow.model.ranges import RangeSet
from fallow.node.page_shelf import KEPT_PAGES, PageShelf

JOB = "a" * 32


def page(start, stop, **fields):
    return InputPage(JOB, start, stop, b"", **fields)


def test_a_task_finds_its_page_and_its_bound():
    shelf = PageShelf()
    shelf.add(JOB, page(10, 20))
    shelf.add(JOB, page(0, 10))
    shelved, bound = shelf.find(JOB, 9)
    assert (shelved.page.start, bound) == (0, 10)
    assert shelf.find(JOB, 10)[1] == 20
    assert shelf.find(JOB, 20) is None
    assert shelf.find("b" * 32, 0) is None


def test_a_page_sent_twice_is_held_once():
    shelf = PageShelf()
    shelf.add(JOB, page(0, 10))
    number = shelf.find(JOB, 0)[0].number
    shelf.add(JOB, page(0, 10))
    assert shelf.find(JOB, 0)[0].number == number


def test_overlapping_pages_serve_what_they_count_for():
    shelf = PageShelf()
    shelf.add(JOB, page(0, 10, counts=(0, 3, 6, 10)))
    shelf.add(JOB, page(2, 8, counts=(3, 6)))
    assert shelf.find(JOB, 2)[1] == 3
    assert shelf.find(JOB, 4)[0].page.start == 2
    assert shelf.find(JOB, 4)[1] == 6
    assert shelf.find(JOB, 7)[0].page.start == 0


def test_old_pages_go_unless_tasks_need_them():
    shelf = PageShelf()
    for i in range(KEPT_PAGES + 20):
        shelf.add(JOB, page(i * 10, i * 10 + 10))
    assert shelf.is_over
    dropped = shelf.trim({JOB: RangeSet([(5, 6)])})
    assert len(dropped) == 20
    assert shelf.find(JOB, 5) is not None
    assert shelf.find(JOB, 15) is None
    assert not shelf.is_over


def test_a_dropped_job_takes_its_pages_along():
    shelf = PageShelf()
    shelf.add(JOB, page(0, 10, blob="d" * 64, refs=("e" * 64,)))
    assert shelf.names("d" * 64)
    assert shelf.names("e" * 64)
    assert len(shelf.drop_job(JOB)) == 1
    assert shelf.find(JOB, 0) is None
    assert not shelf.names("d" * 64)
