"""docs/benchmarks.md and its plots, from the outcomes of the programs and from what notes.toml says about them.

    python -m bench.report OUTCOMES_FOLDER REPORT.md

The plots go into a folder of the report's name beside it. What is in the outcomes is told, missed or not.
"""

import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.outcome import Outcome, Row, Target, number_text
from bench.plots import plot

NOTES = Path(__file__).with_name("notes.toml")
Notes = dict[str, Any]

HEAD = """\
# Benchmarks

Written by `scripts/bench` out of what its programs measured; [`bench/`](../bench) holds them. Each one starts Dockyard
and its peers on the same model in one run, in turn, several rounds. A ratio is made within a round, so what else ran on
the machine then ran beside both. A number is a median; in brackets are the lowest and the highest. The load comes from
the same machine and shares its cores. Peers have environments of their own (`bench/peers/make`). All of it is on the
CPU: **not run on a GPU yet**. Run it yourself:

```sh
scripts/bench                # all of it, hours on two cores
scripts/bench gateway        # one program; the others' results stay
scripts/bench --quick        # does it work? nothing is kept
```
"""


def main() -> None:
    folder, report = Path(sys.argv[1]), Path(sys.argv[2])
    notes: Notes = tomllib.loads(NOTES.read_text())
    outcomes = {outcome.name: outcome for outcome in map(Outcome.read, sorted(folder.glob("*.json")))}
    names = [*(name for name in notes if name in outcomes), *sorted(outcomes.keys() - notes.keys())]
    pictures = report.with_suffix("")
    parts = [HEAD, _targets([outcomes[name] for name in names])]
    for name in names:
        note: Notes = notes.get(name, {})
        picture = pictures / f"{name}.svg"
        drawn = plot(outcomes[name], picture, note.get("plot", ()), note.get("course", ()))
        parts.append(_section(outcomes[name], note, f"{pictures.name}/{picture.name}" if drawn else None))
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("\n".join(parts))
    print(f"{report.name}: {len(names)} programs")


def _targets(outcomes: Sequence[Outcome]) -> str:
    lines = ["## Targets\n", "| what | target | measured | |", "| --- | --- | --- | --- |"]
    for outcome in outcomes:
        for target in outcome.targets:
            link = f"[{outcome.title}](#{_anchor(outcome.title)})"
            lines.append(f"| {link} | {target.text} | {target.found} | {_verdict(target)} |")
    return "\n".join(lines) + "\n"


def _section(outcome: Outcome, note: Notes, picture: str | None) -> str:
    parts = [f"## {outcome.title}", outcome.question]
    if "about" in note:
        parts.append(note["about"].strip())
    if picture:
        parts.append(f"![{outcome.title}]({picture})")
    parts += [_rows(outcome.rows), _ratios(outcome)]
    parts += [f"Not run: {peer}: {why}." for peer, why in outcome.not_run.items()]
    if outcome.remarks:
        parts.append("\n".join(f"- {remark}" for remark in outcome.remarks))
    parts.append(_missed(outcome.targets, note))
    parts.append(_surroundings(outcome))
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(rows: Sequence[Row]) -> str:
    """A line for each metric, a column for each subject; metrics that only one subject has in a table of their own."""
    subjects = list(dict.fromkeys(row.subject for row in rows))
    metrics: dict[str, dict[str, Row]] = {}
    for row in rows:
        metrics.setdefault(row.metric, {})[row.subject] = row
    shared = {metric: found for metric, found in metrics.items() if len(found) > 1}
    alone = [next(iter(found.values())) for metric, found in metrics.items() if metric not in shared]
    lines: list[str] = []
    if shared:
        columns = [subject for subject in subjects if any(subject in found for found in shared.values())]
        lines += [_line(["", *columns]), _line(["---", *(["---:"] * len(columns))])]
        for metric, found in shared.items():
            unit = next(iter(found.values())).unit
            cells = [_cell(found[subject]) if subject in found else "–" for subject in columns]
            lines.append(_line([f"{metric}, {unit}" if unit else metric, *cells]))
    if alone:
        lines += ["", _line(["", "subject", "measured"]), _line(["---", "---", "---:"])]
        lines += [
            _line([f"{row.metric}, {row.unit}" if row.unit else row.metric, row.subject, _cell(row)]) for row in alone
        ]
    return "\n".join(lines).strip("\n")


def _ratios(outcome: Outcome) -> str:
    if not outcome.ratios:
        return ""
    lines = ["| | ratio | of rounds' ratios: median (lowest to highest) | better |", "| --- | --- | ---: | --- |"]
    for ratio in outcome.ratios:
        low, high = ratio.spread
        what = f"{ratio.subject} ÷ {ratio.peer}"
        lines.append(f"| {ratio.metric} | {what} | {ratio.median:.3f} ({low:.3f} to {high:.3f}) | {ratio.better} |")
    return "\n".join(lines)


def _missed(targets: Iterable[Target], note: Notes) -> str:
    """Why a target was missed and what was tried, by hand; a miss without a word about it says so.

    A note is of the targets that begin with its key: what a peer made in this run comes last in a target's text.
    """
    whys: dict[str, str] = note.get("missed", {})
    parts: list[str] = []
    for target in targets:
        if target.met is False:
            found = (why for begins, why in whys.items() if target.text.startswith(begins))
            why = next(found, "Nobody has looked into it yet.").strip()
            parts.append(f"**Missed: {target.text}** ({target.found}). {why}")
    return "\n\n".join(parts)


def _surroundings(outcome: Outcome) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
    lines = [
        f"`{outcome.command}`, {outcome.date}, {outcome.rounds} round(s){', quick' if outcome.quick else ''}.",
        f"{outcome.machine}. {versions}.",
        f"Company: {outcome.company}." if outcome.company else "",
    ]
    return "<sub>" + " ".join(line for line in lines if line) + "</sub>"


def _cell(row: Row) -> str:
    low, high = row.spread
    spread = f" ({number_text(low)} to {number_text(high)})" if len(row.samples) > 1 else ""
    return f"{number_text(row.median)}{spread}"


def _verdict(target: Target) -> str:
    return {True: "met", False: "**missed**", None: "not measured"}[target.met]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _anchor(title: str) -> str:
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


if __name__ == "__main__":
    main()
