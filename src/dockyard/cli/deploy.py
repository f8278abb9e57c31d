"""dockyard deploy and undeploy."""

import json
import shlex
import sys
from typing import Annotated, Any

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.failures import BadUsage, CommandFailed
from dockyard.cli.lookup import get_model
from dockyard.cli.models import ModelArgument
from dockyard.cli.plan import readable_plan
from dockyard.cli.watch import announce, follow_job

# What the published sample requests send; the API itself requires all four.
HYPER_DEFAULTS: dict[str, Any] = {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50}

_NOT_OF_A_DEPLOY = ("modelType", "baseModel")  # what deployconfig.json tells of the model itself

_SAMPLING = "Hyperparameters: what a request that says nothing else gets"
_SCALING = "Scaling"


def register(app: typer.Typer) -> None:
    command(app, "deploy")(deploy)
    command(app, "undeploy")(undeploy)


def deploy(
    session: Session,
    model: ModelArgument,
    name: Annotated[str | None, typer.Option(help="The deployment's name. A name in use is redeployed.")] = None,
    device: Annotated[str | None, typer.Option(help="The device type; `dockyard devices` lists them.")] = None,
    optimization: Annotated[
        str | None, typer.Option(help="ctranslate2, vllm, or none (plain Transformers).", show_default="none")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option(help="no_quantization or int8_float16 (with ctranslate2).", show_default="none")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 to 2; 0 is greedy.", show_default="1", rich_help_panel=_SAMPLING)
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="0 to 512; also the ceiling of a request.", show_default="512", rich_help_panel=_SAMPLING),
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="0 to 1.", show_default="1", rich_help_panel=_SAMPLING)] = None,
    top_k: Annotated[int | None, typer.Option(help="1 to 100.", show_default="50", rich_help_panel=_SAMPLING)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="A stop sequence; may be given again.", rich_help_panel=_SAMPLING)
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="1 to 256.", show_default="10", rich_help_panel=_SCALING)
    ] = None,
    min_replicas: Annotated[
        int | None, typer.Option(help="1 to 10.", show_default="1", rich_help_panel=_SCALING)
    ] = None,
    max_replicas: Annotated[
        int | None, typer.Option(help="1 to 50.", show_default="2", rich_help_panel=_SCALING)
    ] = None,
    scale_up_delay: Annotated[
        int | None, typer.Option(help="1 to 1000 ms.", show_default="30", rich_help_panel=_SCALING)
    ] = None,
    scale_down_delay: Annotated[
        int | None, typer.Option(help="50 to 2000 ms.", show_default="600", rich_help_panel=_SCALING)
    ] = None,
    file: Annotated[
        str | None, typer.Option("-f", "--file", help="The request's body as JSON, `-` for standard input; flags win.")
    ] = None,
    from_export: Annotated[
        bool,
        typer.Option("--from-export", help="As the model was deployed where it was exported; -f and flags win."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, start nothing, print the plan.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Watch the deploy to its end.")] = False,
) -> None:
    """Deploy a model under a name, or redeploy it with other parameters."""
    sampling = {"temperature": temperature, "maxTokens": max_tokens, "topP": top_p, "topK": top_k, "stopSequence": stop}
    scaling = {
        "maxBatchSize": max_batch_size,
        "minReplicas": min_replicas,
        "maxReplicas": max_replicas,
        "scaleUpDelay": scale_up_delay,
        "scaleDownDelay": scale_down_delay,
    }
    optimizing = {"optimizationType": _none_is_empty(optimization), "quantizationType": quantization}
    body = _read_body(file)
    if from_export:
        body = _laid_over(_exported(get_model(session.client, model, to_use=True)), body)
    _overlay(body, {"name": name, "deviceType": device})
    _overlay(_part(body, "hyperParameters"), sampling)
    for field, given in (("scalingParameters", scaling), ("optimizationInfo", optimizing)):
        if any(value is not None for value in given.values()):
            _overlay(_part(body, field), given)
    body["hyperParameters"] = {**HYPER_DEFAULTS, **body["hyperParameters"]}
    _check_complete(body)
    found = get_model(session.client, model, to_use=True)
    params = {"modelType": found["modelType"], "dryRun": "true" if dry_run else None}
    reply = session.client.call("POST", "models", found["modelId"], "deploy", params=params, body=body)
    if dry_run:
        session.out.record(readable_plan(reply) if session.out.terminal else reply)
        if session.out.terminal:
            session.out.warn(reply.get("warnings") or ())
        session.out.note("a dry run: nothing was started; the same without --dry-run deploys it")
    elif wait:
        follow_job(session, reply["dockStatusId"])
        session.out.note(f"ask it with: {_chat_command(found, body['name'])}")
    else:
        announce(session, reply)


def undeploy(
    session: Session,
    model: ModelArgument,
    name: Annotated[str | None, typer.Option(help="One deployment of the model. Default: all of them.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Watch until the last running request is done.")
    ] = False,
) -> None:
    """Undeploy a model: refuse new requests at once, let the running ones finish."""
    found = get_model(session.client, model, to_use=True)
    reply = session.client.call("POST", "models", found["modelId"], "undeploy", params={"name": name})
    if wait:
        follow_job(session, reply["dockStatusId"])
        if name is None:
            session.out.note(f"the model stays; to free its disk space: dockyard models delete {found['modelId']}")
    else:
        announce(session, reply)


def _chat_command(model: dict[str, Any], deployment: str) -> str:
    card = model.get("card") or {}
    completion = "" if card.get("chatTemplate") else "--completion "  # without a template the chat route is a 400
    return f"dockyard chat {completion}{shlex.quote(deployment)} 'TEXT'"


def _exported(model: dict[str, Any]) -> dict[str, Any]:
    """The deployconfig.json that came with the model, as the body of a deploy."""
    config = model.get("deployConfig")
    if not config:
        raise CommandFailed(
            f"error: {model['name']} was not imported from an export, so nothing is known of how it was deployed",
            "  give --name and --device, or the deployconfig.json of another export with -f",
        )
    return {field: value for field, value in config.items() if field not in _NOT_OF_A_DEPLOY}


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two bodies in one, object by object: what is in `above` wins."""
    merged = dict(below)
    for field, value in above.items():
        known = merged.get(field)
        merged[field] = _laid_over(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _read_body(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        if file == "-":
            body = json.load(sys.stdin)
        else:
            with open(file, encoding="utf-8") as stream:
                body = json.load(stream)
    except OSError as error:
        raise BadUsage(f"error: {file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BadUsage(f"error: {file} is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadUsage(f"error: {file} must hold a JSON object, the body of a deploy request")
    return body


def _part(body: dict[str, Any], field: str) -> dict[str, Any]:
    part = body.setdefault(field, {})
    if not isinstance(part, dict):
        raise BadUsage(f"error: {field} in the file must be a JSON object")
    return part


def _overlay(body: dict[str, Any], given: dict[str, Any]) -> None:
    body.update({name: value for name, value in given.items() if value is not None})


def _check_complete(body: dict[str, Any]) -> None:
    missing = [flag for field, flag in (("name", "--name"), ("deviceType", "--device")) if field not in body]
    if missing:
        raise BadUsage(
            f"error: give {' and '.join(missing)}, or a file with -f that has it",
            "  the devices: `dockyard devices`; the rest has defaults: `dockyard deploy --help`",
        )


def _none_is_empty(optimization: str | None) -> str | None:
    return "" if optimization == "none" else optimization
