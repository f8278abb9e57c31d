"""Jobs: the bar never falls, phases close each other, the end is told truthfully."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dockyard.domain.job import PHASES, Action, Job, Phase, advance, fail, percentage_at, succeed
from dockyard.domain.lifecycle import JobStatus
from dockyard.domain.progress import Stage, deploy_progress
from dockyard.errors import Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(action: Action = Action.DEPLOY) -> Job:
    return Job(job_id="ds-1", model_id="cm-1", action=action, created_at=NOW, modified_at=NOW)


@given(st.lists(st.tuples(st.sampled_from([p for p, _ in PHASES[Action.DEPLOY]][:-1]), st.floats(-1, 2)), max_size=20))
def test_the_bar_never_falls_and_is_full_only_at_success(steps: list[tuple[Phase, float]]) -> None:
    current = job()
    for phase, share in steps:
        moved = advance(current, phase, "x", NOW, share)
        assert current.percentage <= moved.percentage < 100
        assert sum(1 for line in moved.logs if line.finished_at is None) == 1
        current = moved
    done = succeed(current, "done", NOW)
    assert (done.percentage, done.status, done.phase) == (100, JobStatus.SUCCESS, Phase.DONE)
    assert all(line.finished_at is not None for line in done.logs)


def test_entering_a_phase_closes_the_one_before() -> None:
    later = NOW + timedelta(seconds=3)
    moved = advance(advance(job(), Phase.VALIDATING, "checks", NOW), Phase.LOADING, "loads", later)
    assert [(line.phase, line.status, line.finished_at) for line in moved.logs] == [
        (Phase.VALIDATING, JobStatus.SUCCESS, later),
        (Phase.LOADING, JobStatus.IN_PROGRESS, None),
    ]


def test_a_failed_job_says_in_which_phase_and_why() -> None:
    ended = fail(advance(job(), Phase.LOADING, "loads", NOW), Reason.OUT_OF_MEMORY, "too big", NOW, ("last line",))
    assert (ended.status, ended.reason, ended.log_tail) == (JobStatus.FAILED, Reason.OUT_OF_MEMORY, ("last line",))
    assert ended.logs[-1].status is JobStatus.FAILED
    assert ended.percentage < 100


def test_every_action_has_a_bar_from_0_to_100() -> None:
    for action, phases in PHASES.items():
        starts = [start for _, start in phases]
        assert starts[0] == 0
        assert starts[-1] == 100
        assert starts == sorted(starts)
        for phase, start in phases:
            assert start <= percentage_at(action, phase, 0.5) <= 100


def test_deploy_progress_speaks_of_the_slowest_replica() -> None:
    told = deploy_progress([Stage("ready"), Stage("loading")], 2, "ctranslate2", 0)
    assert told.phase is Phase.LOADING
    assert "1 of 2" in told.message
    assert deploy_progress([], 1, "echo", 1).message.endswith("(attempt 2)")
    assert deploy_progress([Stage("ready")], 1, "echo", 0).phase is Phase.ROUTING
