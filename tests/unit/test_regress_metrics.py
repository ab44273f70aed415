"""The figures that can become worse."""

from __future__ import annotations

import pytest

from trt_opt.errors import RequestError
from trt_opt.regress.metrics import METRICS, metric_of


def test_every_metric_has_a_floor_and_its_own_name() -> None:
    """A metric is found under its name, and some change of it always matters."""
    for name, kind in METRICS.items():
        assert metric_of(name) is kind
        assert kind.name == name
        assert kind.floor > 0


def test_times_and_sizes_are_better_lower_and_accuracies_higher() -> None:
    """The direction of worse is the one that users mean."""
    higher = {name for name, kind in METRICS.items() if kind.better == "higher"}
    assert higher == {"throughput_per_s", "top1", "agreement", "sqnr_db"}
    assert {name for name, kind in METRICS.items() if not kind.relative} == {"top1", "agreement", "sqnr_db"}


def test_a_metric_of_the_users_own_is_a_share_of_which_more_is_better() -> None:
    """`metric:…` needs no entry in the table."""
    kind = metric_of("metric:package.module:mean_precision")
    assert (kind.title, kind.better, kind.relative) == ("mean_precision", "higher", False)


def test_an_unknown_metric_is_told_with_the_nearest_name() -> None:
    """A slip of the keyboard is answered with what was meant."""
    with pytest.raises(RequestError, match="latency_sm") as caught:
        metric_of("latency_sm")
    assert caught.value.hint == "latency_ms"


@pytest.mark.parametrize("name", ["", "metric:"])
def test_no_name_is_no_metric(name: str) -> None:
    """The empty name, and the prefix alone, are refused."""
    with pytest.raises(RequestError, match="no metric"):
        metric_of(name)
