"""kill -9 of replicas under streams: each goes on from the tokens its client has, to the text of an undisturbed one."""

from typing import Any

import psutil
import pytest
from tests.acceptance.clients import Askers, Stream
from tests.acceptance.server import Server, body

BYTES = "“Grüße, 世界!” 🚢 said the dock, and the yard said nothing. "  # tokens are bytes: characters break anywhere
LONG = BYTES * 4
VERSE = {"prompt": "In the beginning", "temperature": 0, "max_tokens": 48}
DATE = {"prompt": "date: wednesday, september 24, 2014", "temperature": 0}


@pytest.fixture(scope="module")
def echo(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    return server.import_echo(tmp_path_factory.mktemp("echo"), step_ms=5)


def deploy(server: Server, model_id: str, name: str, replicas: int, optimization: str = "") -> str:
    wish = body(name, optimization, minReplicas=replicas, maxReplicas=replicas)
    return server.deploy(model_id, wish)["deploymentId"]


def pids(server: Server, deployment_id: str) -> list[int]:
    return [replica["pid"] for replica in server.replicas(deployment_id)]


def busy(server: Server, deployment_id: str) -> set[int]:
    """Who says that it runs something; a replica tells that at most four times a second."""
    living = {process.pid for process in server.workers()}
    return {replica["pid"] for replica in server.replicas(deployment_id) if replica["running"]} & living


def failovers(server: Server, name: str) -> int:
    """Of the requests that have ended."""
    return server.metric("dockyard_failovers_total", name)


def test_the_streams_of_the_only_replica_go_on_when_it_is_back(server: Server, echo: str) -> None:
    """Eight streams and two whole replies on one replica, and two that wait for their turn."""
    deployment_id = deploy(server, echo, "only", 1)
    streams = [Stream(server, "only", LONG) for _ in range(8)]
    with Askers(server, "only", BYTES, 4) as askers:
        for stream in streams:
            stream.after(10)
        server.until(lambda: server.load("only") == (2, 10))
        (pid,) = pids(server, deployment_id)
        server.kill_replica(pid)
        assert [stream.whole() for stream in streams] == [LONG] * 8
        assert {stream.finish for stream in streams} == {"stop"}
    assert askers.errors == []
    assert {answer.text for answer in askers.answers} == {BYTES}
    (replica,) = server.replicas(deployment_id)
    assert replica["pid"] != pid
    assert replica["restarts"] == 1
    server.until(lambda: failovers(server, "only") >= 10)


def test_a_stream_survives_as_many_kills_as_there_are(server: Server, echo: str) -> None:
    deployment_id = deploy(server, echo, "many", 2)
    stream = Stream(server, "many", LONG)
    for _ in range(3):
        stream.after(len(stream.text) + 10)
        server.until(lambda: bool(busy(server, deployment_id)))
        server.kill_replica(*busy(server, deployment_id))
    assert stream.whole() == LONG
    server.until(lambda: failovers(server, "many") >= 3)


def test_a_replica_may_die_before_the_first_token(server: Server, echo: str) -> None:
    """It hangs when the requests come, so that not one of them gets a token of it."""
    deployment_id = deploy(server, echo, "early", 1)
    (pid,) = pids(server, deployment_id)
    psutil.Process(pid).suspend()
    streams = [Stream(server, "early", BYTES) for _ in range(2)]
    with Askers(server, "early", BYTES, 2) as askers:
        server.until(lambda: server.load("early") == (0, 4))
        server.kill_replica(pid)
        assert [stream.whole() for stream in streams] == [BYTES] * 2
    assert askers.errors == []
    server.until(lambda: failovers(server, "early") >= 4)


@pytest.mark.parametrize("optimization", ["ctranslate2", ""], ids=["ctranslate2", "transformers"])
@pytest.mark.parametrize(("model", "prompt"), [("gpt2-kjv", VERSE), ("t5-date", DATE)], ids=["gpt2", "t5"])
def test_greedy_text_is_the_undisturbed_one(
    server: Server, imported: dict[str, str], model: str, prompt: dict[str, Any], optimization: str
) -> None:
    name = f"{model} {optimization or 'none'}"
    deployment_id = deploy(server, imported[model], name, 1, optimization)
    undisturbed = server.complete(name, **prompt)
    (pid,) = pids(server, deployment_id)
    streams = met_in_the_middle(server, name, prompt, psutil.Process(pid))
    server.kill_replica(pid)
    assert [stream.whole() for stream in streams] == [undisturbed] * len(streams)
    server.until(lambda: failovers(server, name) >= len(streams))
    server.wait(server.post(f"/models/{imported[model]}/undeploy?name={name}")["dockStatusId"])


def met_in_the_middle(server: Server, name: str, prompt: dict[str, Any], replica: psutil.Process) -> list[Stream]:
    """Streams that have begun and not ended, on a replica that is suspended. A fast one is gone before anybody can
    stop it, so it gets a moment of time now and then until the first piece is there.
    """
    while True:
        streams = [Stream(server, name, **prompt) for _ in range(3)]
        server.until(lambda seen=streams: server.load(name) == (0, len(seen)) or any(one.ended for one in seen))
        replica.suspend()
        while not any(stream.text for stream in streams):
            replica.resume()
            streams[0].wait(0.002)
            replica.suspend()
        if server.load(name) == (0, len(streams)):
            return streams
        replica.resume()
        for stream in streams:
            stream.end()


@pytest.fixture(scope="module")
def imported(server: Server) -> dict[str, str]:
    return {name: server.import_model(name) for name in ("gpt2-kjv", "t5-date")}
