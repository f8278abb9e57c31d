"""dockyard chat: streamed answers, completions, pipes, and answers that break off."""

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def test_an_answer_is_streamed(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", CHAT, double.stream("Par", "is", "."))

    result = cli("chat", "flan", "Capital of France?", "--system", "Be short.", "--temperature", "0", "--seed", "1")

    assert (result.exit_code, result.stdout) == (0, "Paris.\n")
    assert double.bodies("POST", CHAT) == [
        {
            "model": "flan",
            "temperature": 0.0,
            "seed": 1,
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "Capital of France?"},
            ],
            "stream": True,
        }
    ]


def test_a_pipe_s_text_is_the_message(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", CHAT, double.stream("ok"))

    cli("chat", "flan", stdin="from a pipe\n")

    assert double.bodies("POST", CHAT)[0]["messages"] == [{"role": "user", "content": "from a pipe"}]


def test_nothing_to_say_is_wrong_usage(cli: "Cli", double: "ApiDouble") -> None:
    assert cli("chat", "flan", stdin="").exit_code == 2
    assert double.seen == []


def test_completion_continues_the_text(cli: "Cli", double: "ApiDouble") -> None:
    event = json.dumps({"choices": [{"text": " and the earth"}]})
    double.on("POST", COMPLETIONS, Response(f"data: {event}\n\ndata: [DONE]\n\n"))

    result = cli("chat", "--completion", "kjv", "God created the heaven")

    assert result.stdout == " and the earth\n"
    assert double.bodies("POST", COMPLETIONS)[0]["prompt"] == "God created the heaven"


def test_no_chat_template_leads_to_completions(cli: "Cli", double: "ApiDouble") -> None:
    error = {"message": "kjv has no chat template", "type": "invalid_request_error", "param": None}
    double.on("POST", CHAT, JSONResponse({"error": {**error, "code": "NO_CHAT_TEMPLATE"}}, 400))

    result = cli("chat", "kjv", "hello")

    assert result.exit_code == 1
    assert "kjv has no chat template (NO_CHAT_TEMPLATE)" in result.stderr
    assert "dockyard chat --completion" in result.stderr


def test_an_answer_that_breaks_off_is_a_failure(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", CHAT, double.stream("Par", end=""))

    result = cli("chat", "flan", "hello")

    assert (result.exit_code, result.stdout) == (1, "Par\n")
    assert "broke off" in result.stderr


def test_an_error_in_the_stream_is_a_failure(cli: "Cli", double: "ApiDouble") -> None:
    error = json.dumps({"error": {"message": "too slow", "type": "timeout", "param": None, "code": "TIMED_OUT"}})
    double.on("POST", CHAT, double.stream("Par", end=f"data: {error}\n\n"))

    result = cli("chat", "flan", "hello")

    assert result.exit_code == 1
    assert "too slow (TIMED_OUT)" in result.stderr


def test_json_is_the_whole_answer(cli: "Cli", double: "ApiDouble") -> None:
    answer = {"choices": [{"message": {"content": "Paris."}}], "usage": {"total_tokens": 5}}
    double.on("POST", CHAT, answer)

    assert json.loads(cli("chat", "flan", "hello", "--json").stdout) == answer
    assert "stream" not in double.bodies("POST", CHAT)[0]


def test_a_conversation_with_nobody_is_not_begun(double: "ApiDouble", environment: dict[str, str]) -> None:
    double.on("GET", "/v1/models", {"data": [{"id": "dates"}]})
    command = (sys.executable, "-c", "from dockyard.cli.main import main; main()", "chat", "dtaes")
    controller, terminal = pty.openpty()  # what a person types comes from a terminal, and none does
    done = subprocess.run(command, env=environment, stdin=terminal, capture_output=True, text=True, check=False)
    os.close(terminal)
    os.close(controller)

    assert (done.returncode, done.stdout) == (1, "")
    assert "no deployment 'dtaes' is served; served are: dates" in done.stderr
    assert "dockyard deployments list" in done.stderr
