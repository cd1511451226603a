from types import SimpleNamespace

from fallow.scheduler.hungry import HungryNodes


def node(name):
    return SimpleNamespace(id=name)


def test_best_rank_first_then_first_come():
    hungry, a, b, c = HungryNodes(), node("a"), node("b"), node("c")
    assert hungry.first() is None
    for each, rank in ((a, 1), (b, 5), (c, 5)):
        hungry.put(each, rank)
    assert hungry.first() is b
    assert hungry.best(9, -99) == [b, c, a]
    assert hungry.best(2, -99) == [b, c]
    assert hungry.best(9, 2) == [b, c]
    assert len(hungry) == 3


def test_moving_and_removing():
    hungry, a, b = HungryNodes(), node("a"), node("b")
    hungry.put(a, 1)
    hungry.put(b, 1)
    hungry.put(a, 1)
    assert hungry.first() is a, "the same rank keeps its place"
    hungry.put(a, 0)
    assert hungry.first() is b
    assert hungry.rank(a) == 0
    hungry.remove(b)
    hungry.remove(b)
    assert hungry.first() is a
    assert hungry.rank(b) is None
