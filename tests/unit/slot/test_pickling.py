import pickle
import sys
import types

import numpy as np
import pytest

from fallow.slot.pickling import dumps


def test_what_c_pickle_can_do_it_does():
    assert dumps([1, 2, 3]) == pickle.dumps([1, 2, 3], 5)
    assert dumps(test_what_c_pickle_can_do_it_does) == pickle.dumps(test_what_c_pickle_can_do_it_does, 5)


def test_lambdas_and_closures_go_by_value():
    n = 5
    assert pickle.loads(dumps(lambda x: x + n))(1) == 6


def test_functions_of_main_go_by_value(monkeypatch):
    main = types.ModuleType("__main__")
    exec("def double(x):\n    return 2 * x", main.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", main)
    data = dumps(main.double)
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert pickle.loads(data)(4) == 8


def test_buffers_are_not_taken_twice_when_cloudpickle_takes_over():
    buffers = []
    data = dumps([np.zeros(50_000), lambda: 1], buffers)
    assert len(buffers) == 1
    array, function = pickle.loads(data, buffers=buffers)
    assert array.shape == (50_000,)
    assert function() == 1


def test_what_cannot_be_pickled_says_so():
    with pytest.raises(TypeError, match="generator"):
        dumps(i for i in range(3))
