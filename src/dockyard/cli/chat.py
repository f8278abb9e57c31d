"""dockyard chat: one question, or a conversation, with a deployment, streamed."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.failures import BadUsage, CommandFailed

Messages = list[dict[str, str]]


def register(app: typer.Typer) -> None:
    command(app, "chat")(chat)


def chat(
    session: Session,
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="The deployment's name or id.")],
    message: Annotated[
        str | None,
        typer.Argument(metavar="[MESSAGE]", help="What to say. Without it: a conversation, or all of a pipe's text."),
    ] = None,
    completion: Annotated[
        bool, typer.Option("--completion", help="Let the model continue the text, for one without a chat template.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Default: the deployment's maxTokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Default: the deployment's.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Default: the deployment's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Where the engine can: the same answer again.")] = None,
) -> None:
    """Talk to a deployment. Words come as they are made; with --json the whole answer at once."""
    if completion and system:
        raise BadUsage("error: --system belongs to a chat; with --completion put it into the text")
    options = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    given = {name: value for name, value in options.items() if value is not None}
    talk = Talk(session, {"model": deployment, **given}, completion, system)
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read().strip()
    if message:
        talk.say(message)
    elif session.out.as_json or not sys.stdin.isatty():
        raise BadUsage("error: give a MESSAGE, or something to read on standard input")
    else:
        _check_served(session, deployment)
        _converse(talk)


class Talk:
    """A conversation so far, and the one way to add to it."""

    def __init__(self, session: Session, request: dict[str, Any], completion: bool, system: str | None) -> None:
        self._session = session
        self._request = request
        self._completion = completion
        self._messages: Messages = [{"role": "system", "content": system}] if system else []

    def say(self, text: str) -> None:
        """Send `text` and print the answer as it comes. What failed is not remembered."""
        if self._completion:
            path, body = "/v1/completions", {**self._request, "prompt": text}
        else:
            messages = [*self._messages, {"role": "user", "content": text}]
            path, body = "/v1/chat/completions", {**self._request, "messages": messages}
        if self._session.out.as_json:
            self._session.out.json(self._session.client.infer(path, body))
            return
        answer = self._print_stream(path, body)
        if not self._completion:
            self._messages += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]

    def _print_stream(self, path: str, body: dict[str, Any]) -> str:
        out = self._session.out.out
        pieces: list[str] = []
        try:
            for piece in _pieces(self._session.client.stream(path, {**body, "stream": True})):
                pieces.append(piece)
                out.write(piece)
                out.flush()
        finally:
            if pieces:
                out.write("\n")
        return "".join(pieces)


def _pieces(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    for event in events:
        for choice in event.get("choices", ()):
            piece = choice["delta"].get("content") if "delta" in choice else choice.get("text")
            if piece:
                yield piece


def _check_served(session: Session, deployment: str) -> None:
    """Before a person types a question: whether anybody would answer it. Raises `CommandFailed`."""
    served = [model["id"] for model in session.client.served()]
    if deployment not in served and not deployment.startswith("dp-"):  # the list has names
        raise CommandFailed(
            f"error: no deployment {deployment!r} is served; served are: {', '.join(served) or 'none'}",
            "  see why: `dockyard deployments list`",
        )


def _converse(talk: Talk) -> None:
    """Question and answer until Ctrl-D. Ctrl-C stops an answer, and at an empty prompt the conversation."""
    import readline  # noqa: F401  gives input() its line editing and history

    print("Ctrl-C stops an answer, Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            print()
            return
        if not text:
            continue
        try:
            talk.say(text)
        except KeyboardInterrupt:
            print("(stopped)", file=sys.stderr)
        except CommandFailed as failure:
            print("\n".join(failure.lines), file=sys.stderr)
