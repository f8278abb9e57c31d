"""Following a job to its end: a bar on a terminal, a line per change in a pipe.

The only place that waits between polls.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dockyard.cli.command import Session
from dockyard.cli.failures import CommandFailed, Unreachable, hints

if TYPE_CHECKING:
    from dockyard.cli.client import Client

Json = dict[str, Any]

SHORTEST_S = 0.1
LONGEST_S = 1.0
GROWTH = 1.25
_PHASE_WIDTH = len("PROVISIONING")
_BAR_WIDTH = 20
UNREACHABLE_FOR_S = 60.0  # a server that is started again within this time goes on with its jobs, and so do we


def follow_job(session: Session, job_id: str, wait: Callable[[float], None] = time.sleep) -> Json:
    """Watch the job to its end, print its outcome, and return it. Raises `CommandFailed` if it FAILED.

    Ctrl-C ends the watching, not the job, and says so.
    """
    job: Json = {}
    try:
        with _progress(session) as show:
            for job in job_states(session.client, job_id, wait):
                show(job)
    except KeyboardInterrupt:
        session.out.note(f"\nthe job goes on; watch it again with: dockyard status {job_id} --watch")
        raise
    if session.out.as_json:
        session.out.json(job)
    session.out.warn(job.get("warnings") or ())
    raise_if_failed(job)
    return job


def announce(session: Session, reply: Json) -> None:
    """A job that was accepted and is not waited for: its id, and how to watch it."""
    session.out.warn(reply.get("warnings") or ())
    if session.out.as_json:
        session.out.json(reply)
    session.out.line(reply["dockStatusId"])
    session.out.note(f"watch it with: dockyard status {reply['dockStatusId']} --watch")


def job_states(client: "Client", job_id: str, wait: Callable[[float], None]) -> Iterator[Json]:
    """The job as it changes, the ended one last. Asks again after 0.1 s, growing to 1 s while nothing changes."""
    seen: object = None
    interval = SHORTEST_S
    unreachable_s = 0.0
    while True:
        try:
            job = client.get("dock-status", job_id)
        except Unreachable:
            if seen is None or unreachable_s >= UNREACHABLE_FOR_S:
                raise
            unreachable_s += LONGEST_S
            wait(LONGEST_S)
            continue
        unreachable_s = 0.0
        shown = (job["status"], job.get("phase"), job.get("percentageComplete"), job.get("message"))
        if shown != seen:
            seen, interval = shown, SHORTEST_S
            yield job
        if job["status"] != "IN_PROGRESS":
            return
        wait(interval)
        interval = min(LONGEST_S, interval * GROWTH)


def raise_if_failed(job: Json) -> None:
    """A FAILED job as a failure of the command: reason, sentence, and the last lines of the process that failed."""
    if job["status"] != "FAILED":
        return
    action = str(job.get("action", "job")).lower()
    lines = [f"  | {line}" for line in job.get("logTail") or ()]
    lines += [f"  {line}" for line in hints(job.get("reason"))]
    if action == "import":
        lines.append(
            f"  once that is mended, import it again; remove this one: dockyard models delete {job['modelId']}"
        )
    raise CommandFailed(
        f"error: the {action} failed in phase {job.get('phase')}: {job.get('message')} ({job.get('reason')})", *lines
    )


@contextmanager
def _progress(session: Session) -> Iterator[Callable[[Json], None]]:
    out = session.out
    if not out.terminal:
        yield lambda job: out.line(_plain(job))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(file=out.out)
    fixed = _PHASE_WIDTH + _BAR_WIDTH + len("100%") + len("0:00:00") + 4  # and a space after each
    columns = (
        TextColumn(f"{{task.fields[phase]:<{_PHASE_WIDTH}}}"),
        BarColumn(_BAR_WIDTH),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        # What does not fit is cut here alone: the outcome is told in full below the bar.
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", max_width=max(1, console.width - fixed)),
        ),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=100, phase="QUEUED")

        def show(job: Json) -> None:
            bar.update(
                task,
                completed=job.get("percentageComplete", 0),
                description=job.get("message") or "",
                phase=job.get("phase") or job["status"],
            )

        yield show


def _plain(job: Json) -> str:
    fields = (job["status"], job.get("phase") or "-", f"{job.get('percentageComplete', 0)}%", job.get("message") or "-")
    return "\t".join(fields)
