"""What the soak found, and whether that is good: rows, targets and remarks of its outcome."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from bench.outcome import DOCKYARD, Outcome, Target
from bench.soak_chaos import Act, Chaos
from bench.soak_load import Tally
from bench.soak_server import SoakServer
from bench.soak_vitals import MEMORY_SLOPE_MIB, Flatness, Vitals, flatness


@dataclass(frozen=True)
class Plan:
    requests: int
    seed: int
    acts: dict[int, Act]
    cycles: int
    min_replicas: int
    max_replicas: int
    settled_s: float
    engine: str = "ctranslate2"  # of the deployment beside echo
    patience: float = 1.0  # by which times to wait are longer, for an engine whose start takes long


@dataclass
class Findings:
    """What the soak saw, for the judgement."""

    plan: Plan
    tally: Tally
    chaos: Chaos
    server: SoakServer
    looks: list[Vitals]
    peaks: list[dict[str, int]]  # replicas of each deployment at most, by cycle
    restless: list[str] = field(default_factory=list[str])  # cycles after which not all came to rest
    exit_code: int | None = None
    left: list[str] = field(default_factory=list[str])


def judge(outcome: Outcome, found: Findings) -> None:
    """The findings as rows, targets and remarks."""
    tally, chaos, plan = found.tally, found.chaos, found.plan
    for number, look in enumerate(found.looks):
        outcome.add(number, "server's own memory at rest (USS)", "MiB", DOCKYARD, look.uss_mib)
        outcome.add(number, "server's descriptors at rest", "", DOCKYARD, look.fds)
        outcome.add(number, "replicas' memory at rest (PSS)", "MiB", DOCKYARD, look.workers_pss_mib)
    for number, seconds in enumerate(found.server.starts_s):
        outcome.add(number, "start of the server until it can serve", "s", DOCKYARD, seconds)
    outcome.add(0, "slowest answer", "s", DOCKYARD, tally.slowest_s)

    def target(text: str, met: bool | None, told: str) -> None:
        outcome.targets.append(Target(text, met, told))

    refused = ", ".join(f"{count} × {status}" for status, count in sorted(tally.refused.items())) or "none"
    target(
        "each request answered, in full and right",
        not tally.lost and tally.answered == plan.requests,
        f"{tally.answered:,} right, {tally.streamed:,} of them streams; {len(tally.lost)} lost; tried again: "
        f"{tally.cut} cut by a kill of the server, {tally.unreachable} knocks while it was down, refused {refused}",
    )
    wanted = {act: list(plan.acts.values()).count(act) for act in Act}
    told = "; ".join(f"{act} {chaos.done[act]}" for act in Act)
    adopted = ", ".join(chaos.adopted) or "none"
    target("all that was to go wrong went wrong", dict(chaos.done) == wanted, f"{told}; adopted {adopted}")
    ups = sum(any(count > plan.min_replicas for count in peak.values()) for peak in found.peaks)
    backs = plan.cycles - len(found.restless)
    highest = max((count for peak in found.peaks for count in peak.values()), default=0)
    scaled = f"up in {ups} and back in {backs} of {plan.cycles} cycles, at most {highest} replicas of one deployment"
    target("scales up in each cycle and back", ups == backs == plan.cycles, scaled)
    _judge_flatness(outcome, flatness(found.looks))
    zombies = max((look.zombies for look in found.looks), default=0)
    target("no zombies at rest", zombies == 0, str(zombies))
    ended = f"exit code {found.exit_code}; left: {', '.join(found.left) or 'nothing'}"
    target("SIGTERM ends it and leaves nothing", found.exit_code == 0 and not found.left, ended)
    faults = _faults(found.server.log)
    target("no fault in the server's log", not faults, f"{len(faults)}")
    outcome.remarks += [str(lost) for lost in tally.lost] + chaos.problems + found.restless + faults[:20]


def _judge_flatness(outcome: Outcome, flat: Flatness | None) -> None:
    memory = f"once warm, memory grows by at most {MEMORY_SLOPE_MIB:g} MiB per 1,000 requests"
    fds, processes = "as many descriptors at each rest", "as many processes at each rest"
    if flat is None:
        outcome.targets += [Target(text, None, "too few looks") for text in (memory, fds, processes)]
        return
    lowest, highest = flat.memory_mib
    grown = (
        f"{flat.memory_slope_mib:+.2f} MiB, between {lowest:.1f} and {highest:.1f}, in the last {flat.memory_looks} of "
        f"{flat.looks} looks at one process"
    )
    counts = f"{min(flat.fds)} to {max(flat.fds)}{f', moved: {flat.moved}' if flat.moved else ''}"
    outcome.targets.append(Target(memory, flat.memory_slope_mib <= MEMORY_SLOPE_MIB, grown))
    outcome.targets.append(Target(fds, flat.fds_are_flat, counts))
    seen = f"{min(flat.processes)} to {max(flat.processes)}"
    outcome.targets.append(Target(processes, len(set(flat.processes)) == 1, seen))


def _faults(log: Path) -> list[str]:
    """Lines that tell of an error of the server's own, and what is no log line at all."""
    faults: list[str] = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            faults.append(f"log: {line[:300]}")
            continue
        if told.get("level") in ("error", "critical") or "exception" in told:
            faults.append(f"log: {told.get('event')}: {str(told.get('exception', told))[-600:]}")
    return faults
