"""dockyard status: jobs ("dock status"): look at one, watch it, cancel it; without an id list the latest."""

from typing import Annotated, Any

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.failures import BadUsage
from dockyard.cli.lookup import get_model
from dockyard.cli.output import cells
from dockyard.cli.watch import follow_job, raise_if_failed


def register(app: typer.Typer) -> None:
    command(app, "status")(status)


def status(
    session: Session,
    job_id: Annotated[
        str | None, typer.Argument(metavar="[DS]", help="The dock status id (ds-…). Without it: the latest jobs.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end. Ctrl-C leaves it running.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Ask for its end; it becomes FAILED, CANCELLED.")] = False,
    model: Annotated[str | None, typer.Option(help="In the list: only this model's jobs.")] = None,
    only: Annotated[
        str | None, typer.Option("--status", help="In the list: IN_PROGRESS, SUCCESS or FAILED only.")
    ] = None,
    limit: Annotated[int, typer.Option(help="In the list: how many.", min=1, max=200)] = 20,
) -> None:
    """Show how an import, export, deploy or undeploy goes. Exits with 1 for a job that FAILED."""
    if job_id is None:
        if watch or cancel:
            raise BadUsage("error: --watch and --cancel need the id of a dock status: `dockyard status` lists them")
        _list(session, model, only, limit)
        return
    if cancel:
        session.client.call("POST", "dock-status", job_id, "cancel")
    if watch:
        follow_job(session, job_id)
        return
    job = session.client.get("dock-status", job_id)
    _show(session, job)
    if not cancel:
        raise_if_failed(job)


def _list(session: Session, model: str | None, only: str | None, limit: int) -> None:
    model_id = get_model(session.client, model)["modelId"] if model else None
    document = session.client.get("dock-status", modelId=model_id, status=only, limit=limit)
    columns = ("ID", "ACTION", "STATUS", "PHASE", "%", "DEPLOYMENT", "STARTED", "MESSAGE")
    paths = (
        "dockStatusId",
        "action",
        "status",
        "phase",
        "percentageComplete",
        "deploymentName",
        "createdOn",
        "message",
    )
    rows = [cells(job, *paths) for job in document["dockStatuses"]]
    session.out.listing(document, columns, rows, "no jobs yet")


def _show(session: Session, job: dict[str, Any]) -> None:
    """The job, and its phases a line each."""
    if session.out.as_json:
        session.out.json(job)
        return
    session.out.record({name: value for name, value in job.items() if name not in ("_id", "statusLogs")})
    for log in job.get("statusLogs") or ():
        line = cells(log, "startedOn", "finishedOn", "phase", "status", "message")
        session.out.line("\t".join(str(cell or "-") for cell in ("phase", *line)))
