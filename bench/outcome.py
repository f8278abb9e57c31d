"""What a benchmark found: samples by metric and subject, ratios round by round, targets. JSON out and in, and a table.

A program makes an `Outcome`, adds samples while its rounds go by, compares, judges, and calls `finish`:

    arguments = parse_arguments(__doc__, rounds=5)
    with recording(arguments, "gateway", "The gateway's share", "How much …?") as outcome:
        for number in range(arguments.rounds):
            outcome.add(number, "p50", "ms", DOCKYARD, 0.41)
            outcome.add(number, "p50", "ms", "ray serve", 3.9)
        outcome.compare("p50", DOCKYARD, "ray serve", better="lower")
        outcome.judge("p50 ≤ 0.5 ms", "p50", DOCKYARD, "<=", 0.5)
"""

import argparse
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Literal, Self

import msgspec

from bench.machine import Company, CompanyWatch, Machine, this_machine

DOCKYARD = "dockyard"
ROOT = Path(__file__).resolve().parents[1]
Better = Literal["lower", "higher"]


@dataclass
class Row:
    """All that was measured of one subject by one metric, one or more samples a round."""

    metric: str
    unit: str
    subject: str
    samples: list[float] = field(default_factory=list[float])
    rounds: list[int] = field(default_factory=list[int])  # of each sample

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest sample."""
        return min(self.samples), max(self.samples)

    def by_round(self) -> dict[int, float]:
        """The median of each round's samples."""
        rounds: dict[int, list[float]] = {}
        for number, sample in zip(self.rounds, self.samples, strict=True):
            rounds.setdefault(number, []).append(sample)
        return {number: median(samples) for number, samples in rounds.items()}


@dataclass
class Ratio:
    """`subject` ÷ `peer`, a sample for each round that has both: what else ran then, ran beside both."""

    metric: str
    subject: str
    peer: str
    better: Better
    samples: list[float]

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.samples), max(self.samples)


@dataclass
class Target:
    """What was to be reached. `met` is None where it could not be measured; `found` says what was measured."""

    text: str
    met: bool | None
    found: str


@dataclass
class Outcome:
    """What one program found in one run."""

    name: str  # of the program: python -m bench.NAME
    title: str
    question: str
    rows: list[Row] = field(default_factory=list[Row])
    ratios: list[Ratio] = field(default_factory=list[Ratio])
    targets: list[Target] = field(default_factory=list[Target])
    not_run: dict[str, str] = field(default_factory=dict[str, str])  # peer → why
    remarks: list[str] = field(default_factory=list[str])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    machine: Machine | None = None
    company: Company | None = None
    command: str = ""
    date: str = ""
    rounds: int = 0
    quick: bool = False

    def add(self, number: int, metric: str, unit: str, subject: str, sample: float) -> None:
        """One sample of round `number`."""
        row = self.find(metric, subject)
        if row is None:
            row = Row(metric, unit, subject)
            self.rows.append(row)
        row.samples.append(sample)
        row.rounds.append(number)

    def find(self, metric: str, subject: str) -> Row | None:
        return next((row for row in self.rows if (row.metric, row.subject) == (metric, subject)), None)

    def compare(self, metric: str, subject: str, peer: str, better: Better) -> Ratio | None:
        """The ratio of two subjects, round by round; None, and nothing is kept, when no round has both."""
        ours, theirs = self.find(metric, subject), self.find(metric, peer)
        if ours is None or theirs is None:
            return None
        above, below = ours.by_round(), theirs.by_round()
        samples = [above[number] / below[number] for number in above if below.get(number)]
        if not samples:
            return None
        ratio = Ratio(metric, subject, peer, better, samples)
        self.ratios.append(ratio)
        return ratio

    def compare_all(self, metric: str, better: Better) -> None:
        """Dockyard against every other subject of the metric."""
        for row in [row for row in self.rows if row.metric == metric and row.subject != DOCKYARD]:
            self.compare(metric, DOCKYARD, row.subject, better)

    def judge(self, text: str, metric: str, subject: str, sign: Literal["<=", ">="], limit: float) -> None:
        """Whether the median of a metric keeps to a limit."""
        row = self.find(metric, subject)
        if row is None:
            self.targets.append(Target(text, None, "not measured"))
            return
        met = row.median <= limit if sign == "<=" else row.median >= limit
        low, high = row.spread
        found = f"{number_text(row.median)} ({number_text(low)} to {number_text(high)}) {row.unit}"
        self.targets.append(Target(text, met, found))

    def judge_ratio(self, text: str, metric: str, peer: str, sign: Literal["<=", ">="], limit: float) -> None:
        """Whether the median of a ratio, already compared, keeps to a limit."""
        ratio = next((one for one in self.ratios if one.metric == metric and one.peer == peer), None)
        if ratio is None:
            self.targets.append(Target(text, None, "not measured"))
            return
        met = ratio.median <= limit if sign == "<=" else ratio.median >= limit
        low, high = ratio.spread
        self.targets.append(Target(text, met, f"{ratio.median:.3f} ({low:.3f} to {high:.3f})"))

    def write(self, path: Path) -> None:
        """Without what follows a first line: that is the tail of some log, with paths of this machine."""
        self.not_run = {peer: _first_line(why) for peer, why in self.not_run.items()}
        self.remarks = [_first_line(remark) for remark in self.remarks]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        return msgspec.json.decode(path.read_bytes(), type=cls)


@dataclass(frozen=True)
class Arguments:
    """What every program is told. `options` holds what a program added to the parser."""

    rounds: int
    quick: bool
    json: Path | None
    options: argparse.Namespace


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that all programs share; add a program's own, then hand it to `parse_arguments`."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, help="how often each subject is measured, in turn")
    made.add_argument("--quick", action="store_true", help="fewer and shorter rounds: does it work, not how fast")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the outcome there")
    return made


def parse_arguments(doc: str | argparse.ArgumentParser | None, rounds: int, quick_rounds: int = 2) -> Arguments:
    """Parse the command line. `rounds` and `quick_rounds` are the program's own defaults."""
    options = (doc if isinstance(doc, argparse.ArgumentParser) else parser(doc)).parse_args()
    chosen = options.rounds or (quick_rounds if options.quick else rounds)
    return Arguments(chosen, options.quick, options.json, options)


@contextmanager
def recording(arguments: Arguments, name: str, title: str, question: str) -> Iterator[Outcome]:
    """An outcome whose surroundings are noted; printed and written at the end, when nothing was raised."""
    command = shlex.join(["python", "-m", f"bench.{name}", *_shown(sys.argv[1:])])
    outcome = Outcome(name, title, question, command=command, rounds=arguments.rounds, quick=arguments.quick)
    outcome.date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    outcome.machine = this_machine()
    outcome.versions = {"dockyard": installed_version("dockyard"), "python": platform.python_version()}
    with CompanyWatch() as watch:
        yield outcome
    outcome.company = watch.company
    print_table(outcome)
    if arguments.json:
        outcome.write(arguments.json)


def installed_version(distribution: str) -> str:
    """Of this environment; `absent` when it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def print_table(outcome: Outcome) -> None:
    """The outcome for a person."""
    print(f"\n{outcome.title}\n{outcome.question}")
    print(f"{outcome.rounds} round(s) in turn; median (lowest to highest)\n")
    for row in outcome.rows:
        low, high = (number_text(value) for value in row.spread)
        spread = f"({low} to {high})"
        print(f"  {row.metric:<44} {row.subject:<24} {number_text(row.median):>9} {spread:<22} {row.unit}")
    for ratio in outcome.ratios:
        low, high = ratio.spread
        what = f"{ratio.subject} ÷ {ratio.peer}"
        print(f"  {ratio.metric:<44} {what:<34} {ratio.median:.3f} ({low:.3f} to {high:.3f}), {ratio.better} is better")
    for peer, why in outcome.not_run.items():
        print(f"  not run: {peer}: {why}")
    for target in outcome.targets:
        word = {True: "met", False: "MISSED", None: "not measured"}[target.met]
        print(f"  target {target.text}: {word}, {target.found}")
    for remark in outcome.remarks:
        print(f"  {remark}")
    if outcome.company is not None:
        print(f"  {outcome.company}", flush=True)


def number_text(value: float) -> str:
    """Three digits that count, thousands with a comma."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(":").replace(str(ROOT), ".")


def _shown(words: list[str]) -> list[str]:
    """The command line without `--json FILE` and without paths of this machine."""
    shown: list[str] = []
    skip = False
    for word in words:
        if skip or word.startswith("--json="):
            skip = False
        elif word == "--json":
            skip = True
        else:
            shown.append(os.path.relpath(word, ROOT) if word.startswith(str(ROOT)) else word)
    return shown
