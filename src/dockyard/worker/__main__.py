"""One replica, until told to stop: `python -m dockyard.worker --socket-fd N --replica-id ID --run-dir DIR < spec.json`.

With `--spare ENGINE` it is none yet: the socket is then the one to the fleet (`protocols/spares.py`).
Exit codes: 0 drained, 2 called wrongly, 3 the engine failed (the last line of the log says why).
"""

import argparse
import asyncio
import os
import signal
import socket
import sys

import msgspec
import uvloop

from dockyard import oom_score
from dockyard.protocols.generation import WorkerSpec
from dockyard.worker.app import ReplicaApp
from dockyard.worker.log import log
from dockyard.worker.replica import Replica
from dockyard.worker.server import SocketServer

EXIT_USAGE = 2
_LAST_WORDS_S = 1.0  # for watchers to read the last line


def main() -> None:
    """Never returns: threads may be inside native code, which a normal exit would wait for or tear down under them."""
    arguments = _arguments()
    oom_score.go_first()  # until it is ready; what is forked from a spare inherits it
    try:
        spec, listening = _task(arguments)
    except msgspec.DecodeError as error:
        log("ERROR", "failed", reason="BAD_FORMAT", message=f"the spec on standard input cannot be read: {error}")
        os._exit(EXIT_USAGE)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    code = loop.run_until_complete(serve(spec, listening))
    sys.stderr.flush()
    os._exit(code)


async def serve(spec: WorkerSpec, listening: socket.socket) -> int:
    """Run the replica to its end; returns the exit code."""
    visible = {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all")} if spec.device == "cuda" else {}
    log("INFO", "started", replica=spec.replica_id, engine=spec.engine, device=spec.device, pid=os.getpid(), **visible)
    replica = Replica(spec)
    server = SocketServer(ReplicaApp(replica))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, replica.drain, signal.Signals(number).name)
    await server.open(listening)
    loading = loop.create_task(replica.load())
    code = await replica.ended
    loading.cancel()
    await server.close(grace_s=_LAST_WORDS_S)
    return code


def _task(arguments: argparse.Namespace) -> tuple[WorkerSpec, socket.socket]:
    """Which replica to be; a spare waits here for as long as it takes."""
    given = socket.socket(fileno=arguments.socket_fd)
    if arguments.spare:
        # Imported here: a replica that is started by itself needs none of it.
        from dockyard.worker.spare import Spare

        return Spare(arguments.spare, given).wait_to_be_replica()
    return msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSpec), given


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dockyard.worker", description=__doc__)
    parser.add_argument("--spare", metavar="ENGINE", help="import this engine and wait to be forked into replicas")
    parser.add_argument(
        "--socket-fd", type=int, required=True, help="an inherited socket: it listens; a spare's is to the fleet"
    )
    parser.add_argument("--replica-id", required=True, help="shown in the process list; the spec's counts")
    parser.add_argument("--run-dir", help="likewise: the fleet that started it knows its own by this")
    return parser.parse_args()


if __name__ == "__main__":
    main()
