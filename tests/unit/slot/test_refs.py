import pickle
import threading

from fallow.slot import refs
from fallow.slot.refs import Ref, collecting


def test_a_ref_comes_back_as_itself_outside_of_slots():
    ref = Ref("ab" * 32, 10)
    again = pickle.loads(pickle.dumps({"deep": [ref]}))["deep"][0]
    assert again == ref
    assert hash(again) == hash(ref)
    assert repr(ref) == "Ref(abababababab…)"


def test_refs_are_noted_once_in_order_while_collecting():
    one, two = Ref("1" * 64), Ref("2" * 64)
    with collecting() as digests:
        pickle.dumps([two, one, two])
        with collecting() as inner:
            pickle.dumps(one)
    pickle.dumps(one)
    assert list(digests) == [two.digest, one.digest]
    assert list(inner) == [one.digest]


def test_other_threads_are_not_noted():
    with collecting() as digests:
        thread = threading.Thread(target=pickle.dumps, args=(Ref("3" * 64),))
        thread.start()
        thread.join()
    assert not digests


def test_a_slot_resolves_through_its_loader(monkeypatch):
    monkeypatch.setattr(refs, "_load", None)
    refs.install(lambda digest: f"value of {digest[:2]}")
    assert pickle.loads(pickle.dumps(Ref("ab" * 32))) == "value of ab"
