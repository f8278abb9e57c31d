"""What benchmarks compute from their samples."""

from pathlib import Path

import pytest
from bench.load import Sample, percentiles
from bench.outcome import DOCKYARD, Outcome
from bench.scale_up import busier_than


@pytest.fixture
def outcome() -> Outcome:
    found = Outcome("gateway", "The gateway", "How fast?")
    for number, (ours, theirs) in enumerate([(1.0, 2.0), (3.0, 4.0), (10.0, 10.0)]):
        found.add(number, "p50", "ms", DOCKYARD, ours)
        found.add(number, "p50", "ms", "peer", theirs)
    return found


def test_a_ratio_is_made_within_each_round(outcome: Outcome) -> None:
    ratio = outcome.compare("p50", DOCKYARD, "peer", "lower")
    assert ratio is not None
    assert ratio.samples == [0.5, 0.75, 1.0]
    assert (ratio.median, ratio.spread) == (0.75, (0.5, 1.0))


def test_rounds_that_only_one_subject_has_make_no_ratio(outcome: Outcome) -> None:
    outcome.add(3, "p50", "ms", DOCKYARD, 99.0)
    ratio = outcome.compare("p50", DOCKYARD, "peer", "lower")
    assert ratio is not None
    assert len(ratio.samples) == 3
    assert outcome.compare("p50", DOCKYARD, "absent", "lower") is None
    assert outcome.compare("p99", DOCKYARD, "peer", "lower") is None


def test_several_samples_of_a_round_count_as_their_median(outcome: Outcome) -> None:
    outcome.add(0, "p50", "ms", DOCKYARD, 2.0)
    row = outcome.find("p50", DOCKYARD)
    assert row is not None
    assert row.by_round() == {0: 1.5, 1: 3.0, 2: 10.0}


def test_a_target_is_met_missed_or_was_not_measured(outcome: Outcome) -> None:
    outcome.judge("at most 3", "p50", DOCKYARD, "<=", 3)
    outcome.judge("at least 4", "p50", DOCKYARD, ">=", 4)
    outcome.judge("of another", "p99", DOCKYARD, "<=", 4)
    assert [target.met for target in outcome.targets] == [True, False, None]
    assert outcome.targets[1].found == "3 (1 to 10) ms"


def test_an_outcome_comes_back_from_its_file(outcome: Outcome, tmp_path: Path) -> None:
    outcome.compare("p50", DOCKYARD, "peer", "lower")
    outcome.not_run["other"] = "it ended with 1:\n  the tail of a log"
    file = tmp_path / "deeper" / "gateway.json"
    outcome.write(file)
    back = Outcome.read(file)
    assert back == outcome
    assert back.not_run == {"other": "it ended with 1"}


def test_percentiles_are_of_milliseconds() -> None:
    seen = percentiles([number / 1000 for number in range(1, 101)])
    assert (round(seen.p50), round(seen.p99), round(seen.max), round(seen.mean, 1)) == (51, 100, 100, 50.5)
    assert percentiles([]).max == 0


def test_a_replica_serves_when_more_streams_run_than_those_before_it_can() -> None:
    two = [_stream(0.0, 1.0), _stream(0.0, 1.0)]
    assert busier_than(two, 2) is None
    assert busier_than([*two, _stream(0.5, 0.7)], 2) == 0.5
    blink = _stream(0.5, 0.51)  # an end that was seen late is no third stream
    assert busier_than([*two, blink], 2) is None
    assert busier_than([*two, blink, _stream(0.6, 0.7)], 2) == 0.6


def _stream(first: float, ended: float) -> Sample:
    return Sample(sent=first, first=first, ended=ended, status=200)
