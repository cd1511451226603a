import pytest

from fallow.demo import nbody, programs, sweep


def results_of(program):
    return [program.function(each) for each in program.inputs]


def test_right_digits_are_found_right():
    program = programs.pi_digits(30)
    verdict = program.judge(results_of(program))
    assert verdict.is_right
    assert verdict.facts["digits"] == 30
    assert "3.141592653589793238462643383279" in verdict.lines[0]
    assert "…" not in verdict.lines[0]


@pytest.mark.parametrize("spoil", [lambda groups: groups[:-1], lambda groups: [groups[0], "000000000", *groups[2:]]])
def test_a_wrong_or_missing_digit_is_found(spoil):
    program = programs.pi_digits(30)
    verdict = program.judge(spoil(results_of(program)))
    assert not verdict.is_right
    assert any("WRONG" in line for line in verdict.lines)


def test_energy_out_of_bounds_is_found():
    program = programs.star_clusters()
    good = [nbody.Outcome(seed, 0.001, 1.3) for seed in program.inputs]
    assert program.judge(good).is_right
    assert not program.judge([*good[:-1], good[-1]._replace(drift=-0.5)]).is_right
    assert not program.judge(good[::-1]).is_right


def test_a_sweep_off_the_theory_is_found():
    program = programs.epidemic_sweep()
    good = [sweep.Outbreak(point.r0, point.seed, sweep.expected_share(point.r0)) for point in program.inputs]
    assert program.judge(good).is_right
    assert not program.judge([each._replace(reached=0.5) for each in good]).is_right
    assert not program.judge(good[:-1]).is_right


@pytest.mark.slow
def test_the_reference_text_must_come_first():
    program = programs.document_search()
    at = [each.name for each in program.inputs].index("concurrent/futures/process.py")
    distances = [0.5] * len(program.inputs)
    assert not program.judge([*distances[:at], 0.9, *distances[at + 1 :]]).is_right
    verdict = program.judge([*distances[:at], 0.0, *distances[at + 1 :]])
    assert verdict.is_right
    assert len(verdict.facts["nearest"]) == 10
