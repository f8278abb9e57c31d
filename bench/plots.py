"""An outcome as a picture: a bar for each subject's median with a line from its lowest to its highest sample. Or, where
the samples are looks one after the other, their course. SVG.

The same outcome gives the same bytes: no date, no random ids, text as text.
"""

from collections import Counter
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
from matplotlib.ticker import MaxNLocator  # noqa: E402

OURS, THEIRS, LINE = "#1f6fb2", "#b8bec6", "#30363d"
MOST_PANELS = 6
COURSE_HEIGHT = 6  # as many bars
WIDE_RANGE = 20  # from here on the scale is logarithmic


def plot(outcome: Outcome, target: Path, metrics: Sequence[str] = (), courses: Sequence[str] = ()) -> bool:
    """Draw the `courses` of some metrics and these metrics; without any named, those that more than one subject has.
    False, and nothing is written, if there is none.
    """
    chosen = [*courses, *metrics]
    groups = _groups(outcome, chosen or _compared(outcome))[:MOST_PANELS]
    if not groups:
        return False
    heights = [COURSE_HEIGHT if rows[0].metric in courses else len(rows) + 1.2 for rows in groups]
    figure, panels = pyplot.subplots(
        len(groups), 1, figsize=(7.2, 0.26 * sum(heights) + 0.3), height_ratios=heights, layout="constrained"
    )
    for axes, rows in zip([panels] if len(groups) == 1 else panels, groups, strict=True):
        if rows[0].metric in courses:
            _draw_course(axes, rows)
        else:
            _draw_bars(axes, rows)
        axes.set_title(f"{rows[0].metric} ({rows[0].unit})" if rows[0].unit else rows[0].metric, loc="left", fontsize=9)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False, labelsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    lines = [line.rstrip() for line in target.read_text().splitlines()]
    target.write_text("\n".join(lines) + "\n")
    return True


def _compared(outcome: Outcome) -> list[str]:
    """The metrics that more than one subject has."""
    count = Counter(row.metric for row in outcome.rows)
    return [metric for metric in count if count[metric] > 1]


def _groups(outcome: Outcome, metrics: Sequence[str]) -> list[list[Row]]:
    """The rows of each metric, ours first."""
    groups = [[row for row in outcome.rows if row.metric == name] for name in metrics]
    return [sorted(rows, key=lambda row: row.subject != DOCKYARD) for rows in groups if rows]


def _draw_course(axes: Axes, rows: Sequence[Row]) -> None:
    """Look by look."""
    for row in rows:
        colour = OURS if DOCKYARD in row.subject else THEIRS
        axes.plot(range(1, len(row.samples) + 1), row.samples, color=colour, marker="o", markersize=3, linewidth=1)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("look", fontsize=8)


def _draw_bars(axes: Axes, rows: Sequence[Row]) -> None:
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
