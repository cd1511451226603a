import pytest

from fallow.model.errors import BadRequest
from fallow.model.node import NodeInfo
from fallow.model.requirements import Requirements, format_size, parse_requirements, parse_size

NODE = NodeInfo(
    name="n",
    cores=4,
    slots=4,
    memory_bytes=24 * 10**9,
    os="linux",
    arch="x86_64",
    pythons=("3.11", "3.12"),
    tags=("lab",),
)


def test_a_node_lacks_nothing_of_the_defaults():
    assert Requirements().unmet_by(NODE) == []


def test_each_lack_is_said():
    wanted = Requirements(
        cores=8, memory_bytes=64 * 10**9, os="windows", arch="arm64", python="3.13", tags=("gpu", "lab", "ssd")
    )
    assert wanted.unmet_by(NODE) == [
        "needs 8 cores, has 4",
        "needs 64 GB, has 24 GB",
        "needs windows, runs linux",
        "needs arm64, is x86_64",
        "needs Python 3.13, has 3.11, 3.12",
        "needs the tag gpu, ssd",
    ]


@pytest.mark.parametrize(
    ("requires", "named"),
    [
        ({"cores": 0}, "cores=0"),
        ({"cores": True}, "cores=True"),
        ({"cores": "two"}, "cores='two'"),
        ({"memory": "4 parsecs"}, "memory='4 parsecs'"),
        ({"memory": -1}, "memory=-1"),
        ({"tags": 5}, "tags=5"),
        ({"tags": ["a", 3]}, "tags=['a', 3]"),
        ({"os": 7}, "os=7"),
        ({"python": ""}, "python=''"),
        ({"gpus": 1, "disk": 2}, "'gpus', 'disk'"),
        ({"cores": 10**5000}, "cores is over the limit"),
        ({"memory": 10**5000}, "memory is over the limit of 4611686 TB"),
        ({"memory": "1" * 400 + "GB"}, "memory is over the limit of 4611686 TB"),
        ({"memory": "1" * 400 + "parsecs"}, "memory='1111"),
        ({"tags": [str(x) for x in range(101)]}, "101 tags are over the limit of 100"),
        ({"tags": "t" * 1_000_000}, "the tag 't"),
    ],
)
def test_the_faulty_key_is_named(requires, named):
    with pytest.raises(BadRequest, match="requires") as caught:
        parse_requirements(requires)
    assert named in str(caught.value)
    assert len(str(caught.value)) < 300


def test_one_tag_may_be_a_word_and_the_functions_python_is_the_default():
    assert parse_requirements({"tags": "lab"}, "3.11") == Requirements(tags=("lab",), python="3.11")
    assert parse_requirements({"python": "3.12"}, "3.11").python == "3.12"
    assert parse_requirements(None) == Requirements()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (24 * 10**9, "24 GB"),
        (1_500_000, "1.5 MB"),
        (999_700, "1 MB"),
        (3 * 10**15, "3000 TB"),
    ],
)
def test_sizes_for_people(size, text):
    assert format_size(size) == text


def test_fractions_of_units():
    assert parse_size("1.5GB") == 1_500_000_000
    assert parse_size("0.5 KiB") == 512
