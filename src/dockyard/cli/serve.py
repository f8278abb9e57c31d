"""dockyard serve: the whole product on this machine. The only module of the command line that imports the server."""

import gc
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1", envvar="DOCKYARD_HOST")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes a free one.", show_default="8000", envvar="DOCKYARD_PORT")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where everything is kept.", show_default="~/.local/share/dockyard", envvar="DOCKYARD_DATA_DIR"
        ),
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="The URL that clients reach the server at.", envvar="DOCKYARD_PUBLIC_URL")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="stand-in, strict or cpu.", show_default="stand-in", envvar="DOCKYARD_DEVICES")
    ] = None,
    scale_delay_unit: Annotated[
        str | None, typer.Option(help="ms or s.", show_default="ms", envvar="DOCKYARD_SCALE_DELAY_UNIT")
    ] = None,
    import_roots: Annotated[
        str | None, typer.Option(help="Folders to import from, separated by `:`.", envvar="DOCKYARD_IMPORT_ROOTS")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each replica on a CPU.", envvar="DOCKYARD_THREADS")
    ] = None,
    vllm_python: Annotated[
        Path | None,
        typer.Option(
            help="The Python that has vLLM.",
            show_default="that of `dockyard engines install vllm`",
            envvar="DOCKYARD_VLLM_PYTHON",
        ),
    ] = None,
    warm_spares: Annotated[
        bool | None,
        typer.Option(
            help="Keep processes that have imported an engine.", show_default="yes", envvar="DOCKYARD_WARM_SPARES"
        ),
    ] = None,
    start_timeout_s: Annotated[
        float | None,
        typer.Option(
            help="Seconds in which a starting replica must come a step further.",
            show_default="1800",
            envvar="DOCKYARD_START_TIMEOUT_S",
        ),
    ] = None,
    queue_limit: Annotated[
        int | None,
        typer.Option(help="Requests that may wait per deployment.", show_default="1000", envvar="DOCKYARD_QUEUE_LIMIT"),
    ] = None,
    upload_ttl_s: Annotated[
        float | None,
        typer.Option(
            help="Seconds that an upload may wait for its next chunk.",
            show_default="86400",
            envvar="DOCKYARD_UPLOAD_TTL_S",
        ),
    ] = None,
    drain_timeout_s: Annotated[
        float | None,
        typer.Option(
            help="Seconds for running requests at the end.", show_default="30", envvar="DOCKYARD_DRAIN_TIMEOUT_S"
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="auto, json or text.", show_default="auto", envvar="DOCKYARD_LOG_FORMAT")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning, error.", show_default="info", envvar="DOCKYARD_LOG_LEVEL")
    ] = None,
) -> None:
    """Run the server: control plane, inference and replicas, until Ctrl-C.

    The first start makes a management key and prints it. DOCKYARD_ADMIN_KEY and DOCKYARD_DATABASE_URL are variables
    only: a flag would show them to everyone who can list processes.
    """
    flags = {name: value for name, value in locals().items() if value is not None}
    _run(flags)


def _run(flags: dict[str, Any]) -> None:
    gc.disable()  # until everything is imported and built; the server enables it again
    from pydantic import ValidationError

    from dockyard.errors import DockyardError
    from dockyard.settings import Settings

    try:
        settings = Settings(**flags)
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"][:1])
            flag = f"--{name.replace('_', '-')} (DOCKYARD_{name.upper()})"
            print(f"error: {flag}: {problem['msg']}, got {problem['input']!r}", file=sys.stderr)
        raise typer.Exit(2) from None
    from dockyard.bootstrap import serve as run_server

    try:
        run_server(settings)
    except DockyardError as error:
        print(f"error: {error.message}", file=sys.stderr)
        raise typer.Exit(1) from None
