import pytest

from fallow.hub.web.overview import Meter, _duration, _rate
from fallow.model.job import JobInfo, JobProgress, JobSpec, Pages


def info(settled, *, job="j", state="running"):
    spec = JobSpec(id=job, stages=("map",), function="f", function_name="f", inputs=Pages())
    progress = JobProgress(state=state, accepted=100, size=100, settled=settled, failed=0, leased=0)
    return JobInfo(spec=spec, progress=progress)


def test_rates_are_means_over_ten_seconds():
    meter = Meter()
    assert meter.rates([info(0)], 0.0) == {}
    assert meter.rates([info(50)], 5.0) == {"j": 10.0}
    assert meter.rates([info(50)], 10.0) == {"j": 5.0}
    assert meter.rates([info(50)], 14.0) == {"j": 0.0}
    assert meter.rates([info(100, state="done")], 15.0) == {}


def test_a_job_that_nobody_looked_at_is_measured_afresh():
    meter = Meter()
    meter.rates([info(0)], 0.0)
    assert meter.rates([info(90)], 600.0) == {}
    assert meter.rates([info(92)], 601.0) == {"j": 2.0}
    meter.rates([info(0, job="other")], 700.0)
    assert list(meter._seen) == ["other"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h 0 min"),
        (90_000, "25 h 0 min"),
        (200_000, "2 days"),
        (-5, "0 s"),
    ],
)
def test_durations(seconds, text):
    assert _duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(12345.6, "12,346"), (3.14, "3.1"), (0.0123, "0.012")])
def test_rates_in_words(rate, text):
    assert _rate(rate) == text
