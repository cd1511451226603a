"""Options are checked where they are given, and the faulty one is named."""

import pytest

from fallow.client.options import PYTHON, parse_options
from fallow.model.errors import BadRequest


def test_defaults():
    options = parse_options({})
    assert (options.priority, options.retries, options.timeout_s, options.name) == (0, 0, None, None)
    assert options.requirements.python == PYTHON


def test_all_options():
    options = parse_options(
        {"requires": {"cores": 2, "memory": "4GB", "tags": ["lab"], "os": "linux"}, "priority": -3, "retries": 2, "timeout": 1.5,
         "name": "sweep", "if_exists": "attach", "speculate": False, "max_retries": 0, "checkpoint_s": 5}
    )  # fmt: skip
    assert (options.requirements.cores, options.requirements.memory_bytes) == (2, 4 * 10**9)
    assert (options.timeout_s, options.speculate, options.max_retries) == (1.5, False, 0)
    assert options.of_spec()["checkpoint_s"] == 5.0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"prioriti": 1}, "prioriti"),
        ({"priority": 1.5}, "priority=1.5"),
        ({"priority": True}, "priority=True"),
        ({"retries": -1}, "retries=-1"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"checkpoint_s": 0}, "checkpoint_s=0"),
        ({"checkpoint_s": "often"}, "checkpoint_s='often'"),
        ({"checkpoint_s": float("nan")}, "checkpoint_s=nan"),
        ({"name": ""}, "name=''"),
        ({"name": "a\nb"}, "name="),
        ({"if_exists": "overwrite"}, "if_exists='overwrite'"),
        ({"requires": {"memory": "4 parsecs"}}, "memory='4 parsecs'"),
        ({"requires": {"gpus": 1}}, "'gpus'"),
        ({"requires": {"cores": 0}}, "cores=0"),
        ({"requires": {"tags": [1]}}, "tags="),
    ],
)
def test_faulty_options_are_named(given, named):
    with pytest.raises(BadRequest, match=named.replace("(", r"\(")):
        parse_options(given)
