"""What a replica and the engine that it shares with others say to each other: MessagePack, its length before each.

A replica connects and says `Join`; it is told `Welcome` or `Taken`, after the first `Loading` now and then, and in the
end `Loaded` or `Broken`. Then it says `Submit` and `Cancel`, and hears `Tokens` and `Ended`. The connection is the
replica's life: when it breaks, what came over it is aborted, and an engine that nobody is connected to ends.
"""

from collections.abc import Iterator, Sequence

import msgspec

from dockyard.engines.base import Chance, Sampling
from dockyard.protocols.generation import Adapter

_LENGTH_BYTES = 4


class Join(msgspec.Struct, tag="join"):
    adapter: Adapter


class Welcome(msgspec.Struct, tag="welcome"):
    """The seat is the replica's, whether the engine has loaded or not. `pid`: of the engine's process and its group."""

    pid: int


class Taken(msgspec.Struct, tag="taken"):
    """A replica of the same version is here already, the engine is of another group, or about to end."""


class Loading(msgspec.Struct, tag="loading"):
    share: float
    words: str


class Loaded(msgspec.Struct, tag="loaded"):
    pass


class Broken(msgspec.Struct, tag="broken"):
    """The engine could not load, and ends."""

    reason: str
    message: str


class Submit(msgspec.Struct, tag="submit"):
    """A `Row`. `number` is chosen by the replica; `schema` is what its constraint was compiled of."""

    number: int
    prompt: Sequence[int]
    max_new: int
    sampling: Sampling
    resume: Sequence[int] = ()
    schema: str | None = None
    logprobs: int | None = None


class Cancel(msgspec.Struct, tag="cancel"):
    number: int


class Tokens(msgspec.Struct, tag="tokens"):
    number: int
    ids: list[int]
    chances: list[Chance] = []


class Ended(msgspec.Struct, tag="ended"):
    """`reason` and `message` where it ended with an error."""

    number: int
    reason: str | None = None
    message: str = ""


ToEngine = Join | Submit | Cancel
ToReplica = Welcome | Taken | Loading | Loaded | Broken | Tokens | Ended

_encoder = msgspec.msgpack.Encoder()
decode_to_engine = msgspec.msgpack.Decoder[ToEngine](ToEngine).decode
decode_to_replica = msgspec.msgpack.Decoder[ToReplica](ToReplica).decode


def framed(message: ToEngine | ToReplica) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


class Frames:
    """Cuts what comes over a connection into messages' bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._buffer[:_LENGTH_BYTES], "little")
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH_BYTES:end])
            del self._buffer[:end]
            yield body
