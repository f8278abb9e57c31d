"""What a deploy's job says while its replicas start: the phase of the slowest one, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from dockyard.domain.job import Phase

# A replica's own phases in order, each with the job's phase and how far into it that is.
_STEPS: dict[str, tuple[Phase, float, str]] = {
    "pending": (Phase.PROVISIONING, 0.0, "waits to start"),
    "starting": (Phase.PROVISIONING, 0.3, "process has started"),
    "importing": (Phase.PROVISIONING, 0.6, "imports the engine"),
    "loading": (Phase.LOADING, 0.0, "loads the weights"),
    "warming_up": (Phase.WARMING_UP, 0.0, "generates for the first time"),
    "ready": (Phase.ROUTING, 0.0, "is ready"),
}
_ORDER = list(_STEPS)


@dataclass(frozen=True, slots=True)
class Stage:
    """A replica's own account of its start: its phase, how much of that is over, and in which words, if it tells."""

    phase: str
    share: float = 0.0
    words: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    phase: Phase
    share: float
    message: str


def deploy_progress(stages: Sequence[Stage], wanted: int, engine: str, failures: int) -> Progress:
    """`stages`: of the living replicas; `failures`: of this version so far."""
    known = [stage for stage in stages if stage.phase in _STEPS]
    again = f" (attempt {failures + 1})" if failures else ""
    if len(known) < wanted:
        return Progress(Phase.PROVISIONING, 0.0, f"starting {wanted} {engine} replica(s){again}")
    slowest = min(known, key=lambda stage: (_ORDER.index(stage.phase), stage.share))
    phase, share, words = _STEPS[slowest.phase]
    if slowest.phase == "loading" and slowest.share:
        share, words = slowest.share, slowest.words
    ready = sum(stage.phase == "ready" for stage in known)
    return Progress(phase, share, f"{ready} of {wanted} {engine} replica(s) ready; the slowest {words}{again}")
