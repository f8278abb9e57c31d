"""The `dockyard` command: puts the groups together. Nothing heavy is imported before a command runs."""

from typing import Annotated

import typer

from dockyard import __version__
from dockyard.cli import chat, deploy, deployments, devices, engines, keys, models, serve, status
from dockyard.cli.output import Output

app = typer.Typer(
    name="dockyard",
    no_args_is_help=True,
    epilog="To begin: `dockyard serve` in one terminal; in another `dockyard models import SOURCE`, `dockyard deploy "
    "MODEL --name NAME --device g5.xlarge --wait`, `dockyard chat NAME`. Each command tells what comes next.",
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The entry point of the `dockyard` command. Exit codes: 0 it worked, 1 it failed, 2 wrong usage, 130 Ctrl-C."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dockyard {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Turn a language model into a live, optimized inference endpoint on your own hardware."""


def show_version(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the version."""
    out = Output(as_json)
    out.record({"version": __version__}) if as_json else out.line(f"dockyard {__version__}")


# The order here is the order of `dockyard --help`, which puts commands before groups.
serve.register(app)
app.add_typer(models.app, name="models")
deploy.register(app)
status.register(app)
app.add_typer(deployments.app, name="deployments")
chat.register(app)
app.add_typer(keys.app, name="keys")
app.add_typer(engines.app, name="engines")
devices.register(app)
app.command("version")(show_version)
