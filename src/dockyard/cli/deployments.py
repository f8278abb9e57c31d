"""dockyard deployments: what is deployed, its replicas, events and logs; roll back, set the endpoint timeout."""

from typing import Annotated

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.lookup import get_deployment
from dockyard.cli.output import cells
from dockyard.cli.watch import announce, follow_job

app = typer.Typer(help="Look at deployments, roll one back.", no_args_is_help=True)

DeploymentArgument = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="The deployment's name or id.")]
Limit = Annotated[int, typer.Option(help="How many.", min=1, max=200)]


@command(app, "list")
def list_(session: Session) -> None:
    """List the deployments."""
    document = session.client.pages("deployments", plural="deployments")
    columns = ("ID", "NAME", "STATE", "VERSION", "ENGINE", "RUNS ON", "READY", "MODEL")
    paths = (
        "deploymentId",
        "name",
        "state",
        "current.version",
        "current.engine",
        "current.runsOn",
        "replicas.ready",
        "modelId",
    )
    rows = [cells(deployment, *paths) for deployment in document["deployments"]]
    session.out.listing(document, columns, rows, "nothing is deployed; deploy a model: `dockyard deploy MODEL`")


@command(app, "show")
def show(session: Session, deployment: DeploymentArgument) -> None:
    """Show one deployment: state, current version, parameters, endpoints."""
    session.out.record(get_deployment(session.client, deployment))


@command(app, "versions")
def versions(session: Session, deployment: DeploymentArgument) -> None:
    """List a deployment's versions, newest first."""
    document = session.client.pages("deployments", _id(session, deployment), "versions", plural="versions")
    paths = ("version", "versionName", "state", "engine", "runsOn", "createdOn", "message")
    rows = [cells(version, *paths) for version in document["versions"]]
    columns = ("VERSION", "NAME", "STATE", "ENGINE", "RUNS ON", "MADE", "MESSAGE")
    session.out.listing(document, columns, rows, "no versions")


@command(app, "events")
def events(session: Session, deployment: DeploymentArgument, limit: Limit = 50) -> None:
    """List what happened to a deployment, newest first: from, to, why, who."""
    document = session.client.get("deployments", _id(session, deployment), "events", limit=limit)
    paths = ("at", "subject", "from", "to", "reason", "message", "actor")
    rows = [cells(event, *paths) for event in document["events"]]
    columns = ("AT", "SUBJECT", "FROM", "TO", "REASON", "MESSAGE", "ACTOR")
    session.out.listing(document, columns, rows, "no events")


@command(app, "replicas")
def replicas(session: Session, deployment: DeploymentArgument) -> None:
    """List the living replicas."""
    document = session.client.get("deployments", _id(session, deployment), "replicas")
    paths = (
        "replicaId",
        "state",
        "pid",
        "engine",
        "computeType",
        "runsOn",
        "version",
        "running",
        "waiting",
        "restarts",
    )
    rows = [cells(replica, *paths) for replica in document["replicas"]]
    columns = ("ID", "STATE", "PID", "ENGINE", "PRECISION", "RUNS ON", "VERSION", "RUNNING", "WAITING", "RESTARTS")
    session.out.listing(document, columns, rows, "no replica lives")


@command(app, "logs")
def logs(
    session: Session,
    deployment: DeploymentArgument,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of each replica's last lines.", min=1)] = 100,
) -> None:
    """Print the last lines that the replicas wrote, also of the ones that failed."""
    document = session.client.get("deployments", _id(session, deployment), "logs", lines=lines)
    if session.out.as_json:
        session.out.json(document)
        return
    for entry in document["logs"]:
        for line in entry["lines"]:
            session.out.line(f"{entry['replicaId'][:11]}  {line}")
    if not document["logs"]:
        session.out.note("no replica has written anything")


@command(app, "rollback")
def rollback(
    session: Session,
    deployment: DeploymentArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The number of an earlier version.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Watch the deploy to its end.")] = False,
) -> None:
    """Deploy an earlier version's parameters again, as a new version that takes over without a lost request."""
    reply = session.client.call("POST", "deployments", _id(session, deployment), "rollback", body={"version": version})
    if wait:
        follow_job(session, reply["dockStatusId"])
    else:
        announce(session, reply)


@command(app, "set-timeout")
def set_timeout(
    session: Session,
    deployment: DeploymentArgument,
    seconds: Annotated[int, typer.Argument(metavar="SECONDS", help="30 to 180.")],
) -> None:
    """Set how long a request may take before it gets a 504."""
    reply = session.client.call("PATCH", "deployments", _id(session, deployment), body={"endpointTimeout": seconds})
    if session.out.as_json:
        session.out.json(reply)
    session.out.line(f"{reply['name']}: requests may take {reply['endpointTimeout']} s from now on")


def _id(session: Session, typed: str) -> str:
    return get_deployment(session.client, typed)["deploymentId"]
