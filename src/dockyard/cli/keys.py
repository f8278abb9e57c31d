"""dockyard keys: API apps with their scopes, their keys, and the inference keys of deployments."""

from typing import Annotated, Any

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.failures import BadUsage
from dockyard.cli.lookup import get_app, get_deployment
from dockyard.cli.output import cells

app = typer.Typer(help="Make, list and revoke keys.", no_args_is_help=True)
apps = typer.Typer(help="API apps: a name, and what its keys may do.", no_args_is_help=True)
app.add_typer(apps, name="apps")

SCOPES = "Deploy Model, Undeploy Model, Import Model, Export Model, View, Delete Model, Manage Keys, Infer"

AppArgument = Annotated[str, typer.Argument(metavar="APP", help="The app's name or id.")]
OfApp = Annotated[str | None, typer.Option("--app", metavar="APP", help="The app whose keys: its name or id.")]
OfDeployment = Annotated[
    str | None, typer.Option("--deployment", metavar="DEPLOYMENT", help="The deployment whose inference keys.")
]
Scopes = Annotated[list[str] | None, typer.Option("--scope", help=f"One of: {SCOPES}. May be given again.")]


@command(app, "create")
def create_key(
    session: Session,
    app: OfApp = None,
    deployment: OfDeployment = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "cli",
) -> None:
    """Make a key and print it, this once. In a pipe nothing but the key is printed."""
    reply = session.client.call("POST", *_holder(session, app, deployment), "keys", body={"name": name})
    if session.out.as_json:
        session.out.json(reply)
    session.out.line(reply["key"])
    session.out.note(f"key {reply['keyId']} ({reply['name']}); keep it now, it is not shown again")


@command(app, "list")
def list_keys(session: Session, app: OfApp = None, deployment: OfDeployment = None) -> None:
    """List keys by their last four characters."""
    document = session.client.pages(*_holder(session, app, deployment), "keys", plural="keys")
    rows = [cells(key, "keyId", "name", "lastFour", "createdOn", "lastUsedOn") for key in document["keys"]]
    session.out.listing(document, ("ID", "NAME", "ENDS IN", "MADE", "LAST USED"), rows, "no keys")


@command(app, "revoke")
def revoke_key(
    session: Session,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id (ak-…), not the key.")],
    app: OfApp = None,
    deployment: OfDeployment = None,
) -> None:
    """Revoke a key; it is refused within a second."""
    reply = session.client.call("DELETE", *_holder(session, app, deployment), "keys", key_id)
    if session.out.as_json:
        session.out.json(reply)
    session.out.line(f"revoked {key_id}")


@command(apps, "create")
def create_app(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The app's name.")],
    scope: Scopes = None,
) -> None:
    """Make an API app. Its keys may do what its scopes say."""
    if not scope:
        raise BadUsage(f"error: give at least one --scope of: {SCOPES}")
    session.out.record(session.client.call("POST", "apps", body={"name": name, "scopes": scope}))


@command(apps, "list")
def list_apps(session: Session) -> None:
    """List the API apps."""
    document = session.client.pages("apps", plural="apps")
    rows = [cells(app, "appId", "name", "scopes", "createdOn") for app in document["apps"]]
    session.out.listing(document, ("ID", "NAME", "SCOPES", "MADE"), rows, "no apps")


@command(apps, "change")
def change_app(
    session: Session,
    app: AppArgument,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    scope: Scopes = None,
) -> None:
    """Rename an app, or give it other scopes in place of its own; its keys have them at once."""
    body: dict[str, Any] = {**({"name": name} if name else {}), **({"scopes": scope} if scope else {})}
    if not body:
        raise BadUsage("error: give --name or --scope")
    found = get_app(session.client, app)
    session.out.record(session.client.call("PATCH", "apps", found["appId"], body=body))


@command(apps, "delete")
def delete_app(session: Session, app: AppArgument) -> None:
    """Delete an app with all its keys."""
    found = get_app(session.client, app)
    reply = session.client.call("DELETE", "apps", found["appId"])
    if session.out.as_json:
        session.out.json(reply)
    session.out.line(f"deleted {found['name']} ({found['appId']}) and its keys")


def _holder(session: Session, app: str | None, deployment: str | None) -> tuple[str, str]:
    """The path of what holds the keys. Raises `BadUsage` unless exactly one is given."""
    if (app is None) == (deployment is None):
        raise BadUsage("error: give either --app (management keys) or --deployment (inference keys)")
    if app is not None:
        return "apps", get_app(session.client, app)["appId"]
    return "deployments", get_deployment(session.client, deployment or "")["deploymentId"]
