"""From what a person types, an id or a name, to the one thing that is meant."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dockyard.cli.failures import BadUsage, CommandFailed

if TYPE_CHECKING:
    from dockyard.cli.client import Client

Json = dict[str, Any]


FAILED = "Import Failed"


def get_model(client: "Client", typed: str, *, to_use: bool = False) -> Json:
    """The model with this id, else the only one with this name; of those `to_use` one that was imported comes first.

    Raises `BadUsage` listing several.
    """
    if typed.startswith("cm-"):
        return client.get("models", typed)
    named = [m for m in client.pages("models", plural="models")["models"] if m["name"] == typed]
    if to_use:  # of failed ones the latest, of which the server tells that it is not ready
        named = [m for m in named if m["state"] != FAILED] or named[:1]
    return _only("model", typed, named, "modelId", "dockyard models list")


def get_deployment(client: "Client", typed: str) -> Json:
    """The deployment with this id, else the only one with this name. One that is not undeployed comes first."""
    if typed.startswith("dp-"):
        return client.get("deployments", typed)
    named = [d for d in client.pages("deployments", plural="deployments")["deployments"] if d["name"] == typed]
    live = [d for d in named if d["state"] != "Undeployed"]
    return _only("deployment", typed, live or named, "deploymentId", "dockyard deployments list")


def get_app(client: "Client", typed: str) -> Json:
    """The API app with this id, else the only one with this name."""
    apps = client.pages("apps", plural="apps")["apps"]
    found = [a for a in apps if typed in (a["appId"], a["name"])]
    return _only("app", typed, found, "appId", "dockyard keys apps list")


def _only(kind: str, typed: str, found: Sequence[Json], id_field: str, list_command: str) -> Json:
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandFailed(f"error: there is no {kind} named {typed!r}", f"  see what there is: `{list_command}`")
    candidates = [
        f"  {one[id_field]}  {one.get('state') or ''}  made {one.get('createdOn', '')}".rstrip() for one in found
    ]
    raise BadUsage(f"error: {len(found)} {kind}s are named {typed!r}; give the id of one of them:", *candidates)
