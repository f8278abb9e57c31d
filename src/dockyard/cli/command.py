"""What every command of the API client has in common: --url, --api-key, --json, and how a failure ends it."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli.access import DEFAULT_URL, find_key, resolve_url
from dockyard.cli.failures import CommandFailed
from dockyard.cli.output import Output

if TYPE_CHECKING:
    from dockyard.cli.client import Client

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help=f"The server. Else DOCKYARD_URL, else {DEFAULT_URL}.", rich_help_panel="Connection"),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="The key. Else DOCKYARD_API_KEY, DOCKYARD_ADMIN_KEY, or the admin-key file of this machine's server.",
        rich_help_panel="Connection",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the API's JSON, and nothing else, on standard output.")]


class Session:
    """One run of a command: where it prints, and the server it talks to, reached at the first use."""

    def __init__(self, url: str | None, api_key: str | None, as_json: bool) -> None:
        self.out = Output(as_json)
        self._url = url
        self._key = api_key
        self._client: Client | None = None

    @property
    def client(self) -> "Client":
        if self._client is None:
            from dockyard.cli.client import Client  # httpx takes 0.2 s to import; --help does without it

            url = resolve_url(self._url)
            self._client = Client(url, find_key(self._key, url))
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def command(app: typer.Typer, name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function `f(session, ...)` as the command `name`, with the three common options added to its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*, url: str | None, api_key: str | None, as_json: bool, **own: Any) -> None:
            session = Session(url, api_key, as_json)
            with ending_well(session.out):
                try:
                    function(session, **own)
                finally:
                    session.close()

        own = list(inspect.signature(function).parameters.values())[1:]
        common = [
            inspect.Parameter("url", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=UrlOption),
            inspect.Parameter("api_key", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=KeyOption),
            inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption),
        ]
        # typer reads both: the signature for order and defaults, the annotations for the types.
        run.__dict__["__signature__"] = inspect.Signature([*own, *common])
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *common]}
        app.command(name, **settings)(run)
        return function

    return register


@contextmanager
def ending_well(out: Output) -> Iterator[None]:
    """A failure as lines on standard error and its exit code; Ctrl-C as 130; a closed pipe as a quiet end."""
    try:
        yield
        out.out.flush()
    except CommandFailed as failure:
        out.fail(failure.lines)
        raise typer.Exit(failure.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # `dockyard … | head`: nobody reads any more. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
