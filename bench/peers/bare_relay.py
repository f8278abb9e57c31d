"""Bytes that go to another process and come back: what two hops cost on this machine with nothing done at either end.

As on the way through Dockyard's gateway, four times somebody who sleeps is woken for a request: this process, the one
behind it, this one again, and the client. No HTTP is understood; each connection has a thread that blocks.
"""

import argparse
import contextlib
import multiprocessing
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

_BODY = b'{"choices":[{"text":"hi","finish_reason":"length"}],"usage":{"prompt_tokens":2,"completion_tokens":2}}'
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_AT_ONCE = 65_536  # more than a request or a reply has: each comes with one call


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    port = options.parse_args().port
    with tempfile.TemporaryDirectory(prefix="dockyard-bench-") as folder:
        path = str(Path(folder) / "replica.sock")
        with socket.socket(socket.AF_UNIX) as behind, socket.create_server(("127.0.0.1", port), backlog=64) as front:
            behind.bind(path)
            behind.listen(64)
            replica = multiprocessing.get_context("fork").Process(target=_serve, args=(behind, _answer), daemon=True)
            replica.start()
            try:
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                with contextlib.suppress(KeyboardInterrupt):
                    _serve(front, lambda client: _relay(client, path))
            finally:
                replica.kill()
                replica.join()


def _serve(listening: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        client, _ = listening.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


def _relay(client: socket.socket, path: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as replica:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replica.connect(path)
        while request := client.recv(_AT_ONCE):
            replica.sendall(request)
            reply = replica.recv(_AT_ONCE)
            if not reply:
                return
            client.sendall(reply)


def _answer(client: socket.socket) -> None:
    with client:
        while client.recv(_AT_ONCE):
            client.sendall(REPLY)


if __name__ == "__main__":
    main()
