"""An outcome as a picture: a bar for each subject's median with a line from its lowest to its highest sample. SVG.

The same outcome gives the same bytes: no date, no random ids, text as text.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from bench.outcome import DOCKYARD, Outcome, Row, number_text

matplotlib.use("svg")
matplotlib.rcParams.update(
    {"svg.hashsalt": "dockyard", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
)

from matplotlib import pyplot  # noqa: E402 - after the choice of what draws
from matplotlib.axes import Axes  # noqa: E402

OURS, THEIRS, LINE = "#1f6fb2", "#b8bec6", "#30363d"
MOST_PANELS = 6
WIDE_RANGE = 20  # from here on the scale is logarithmic


def plot(outcome: Outcome, target: Path, metrics: Sequence[str] = ()) -> bool:
    """Draw these metrics, or those that more than one subject has; False, and nothing is written, if there is none."""
    groups = _groups(outcome, metrics)[:MOST_PANELS]
    if not groups:
        return False
    heights = [len(rows) + 1.2 for rows in groups]
    figure, panels = pyplot.subplots(
        len(groups), 1, figsize=(7.2, 0.26 * sum(heights) + 0.3), height_ratios=heights, layout="constrained"
    )
    for axes, rows in zip([panels] if len(groups) == 1 else panels, groups, strict=True):
        _draw(axes, rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    lines = [line.rstrip() for line in target.read_text().splitlines()]
    target.write_text("\n".join(lines) + "\n")
    return True


def _groups(outcome: Outcome, metrics: Sequence[str]) -> list[list[Row]]:
    """The rows of each metric, ours first."""
    names = metrics or list(dict.fromkeys(row.metric for row in outcome.rows))
    groups = [[row for row in outcome.rows if row.metric == name] for name in names]
    enough = 1 if metrics else 2
    return [sorted(rows, key=lambda row: row.subject != DOCKYARD) for rows in groups if len(rows) >= enough]


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    medians = [row.median for row in rows]
    places = range(len(rows))
    colours = [OURS if DOCKYARD in row.subject else THEIRS for row in rows]
    low, high = [row.spread[0] for row in rows], [row.spread[1] for row in rows]
    axes.barh(places, medians, color=colours, height=0.7)
    axes.hlines(places, low, high, color=LINE, linewidth=1)
    axes.set_yticks(places, [row.subject for row in rows])
    axes.invert_yaxis()
    if min(low) > 0 and max(high) / min(low) > WIDE_RANGE:
        axes.set_xscale("log")
    for place, row in enumerate(rows):
        axes.annotate(
            number_text(row.median), (row.spread[1], place), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.margins(x=0.12)
    axes.set_title(f"{rows[0].metric} ({rows[0].unit})" if rows[0].unit else rows[0].metric, loc="left", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False, labelsize=8)
