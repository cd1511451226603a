import mpmath
import pytest

from fallow.demo.pi import GROUP_DIGITS, all_digits, digits_at, starts


@pytest.fixture(scope="module")
def reference() -> str:
    with mpmath.workdps(3100):
        return mpmath.nstr(mpmath.pi, 3050)[2:]


def test_chudnovsky_agrees_with_mpmath(reference):
    for digits in (1, 2, 13, 14, 15, 100, 3000):
        assert all_digits(digits) == reference[:digits]


@pytest.mark.parametrize("start", [0, 1, 8, 9, 45, 100, 261])
def test_a_group_is_right_from_its_position_alone(start, reference):
    assert digits_at(start) == reference[start : start + GROUP_DIGITS]


def test_a_group_keeps_its_leading_zeros(reference):
    start = reference.index("0628620899") - 1
    assert digits_at(start + 1).startswith("0628")


@pytest.mark.slow
def test_a_group_around_six_nines_does_not_carry(reference):
    assert reference[761:767] == "999999"
    assert digits_at(761) == reference[761:770]


@pytest.mark.parametrize(("digits", "groups"), [(1, 1), (9, 1), (10, 2), (1200, 134)])
def test_groups_cover_the_digits(digits, groups):
    assert len(starts(digits)) == groups
    assert starts(digits)[-1] < digits <= starts(digits)[-1] + GROUP_DIGITS
