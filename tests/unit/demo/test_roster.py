from fallow.demo.roster import Roster, Row
from fallow.model.errors import Unavailable


def said(finished, *, connected=True, leases=1, tasks=5):
    return {"name": "node-1", "connected": connected, "finished": finished, "leases": leases, "tasks": tasks}


def test_a_node_that_never_joined_is_gone():
    assert Roster(["node-1"], dict).look() == [Row("node-1")]


def test_a_lost_node_keeps_its_count_and_adds_to_it_when_it_returns():
    answers = iter([
        {"node-1": said(3)},
        {"node-1": said(7, connected=False)},
        {},
        {"node-1": said(2)},
        {"node-1": said(4)},
    ])  # fmt: skip
    roster = Roster(["node-1"], lambda: next(answers))
    looks = [roster.look()[0] for _ in range(5)]
    assert [row.finished for row in looks] == [3, 7, 7, 9, 11]
    assert [row.connected for row in looks] == [True, False, False, True, True]
    assert looks[2] == Row("node-1", finished=7)


def test_a_node_that_returns_between_two_looks_is_counted_anew():
    answers = iter([{"node-1": said(7)}, {"node-1": said(2)}])
    roster = Roster(["node-1"], lambda: next(answers))
    assert [roster.look()[0].finished for _ in range(2)] == [7, 9]


def test_a_hub_that_does_not_answer_leaves_the_picture():
    def ask():
        if asked:
            raise Unavailable("gone")
        asked.append(1)
        return {"node-1": said(7)}

    asked = []
    roster = Roster(["node-1"], ask)
    assert roster.look() == roster.look() == [Row("node-1", connected=True, finished=7, leases=1, tasks=5)]
