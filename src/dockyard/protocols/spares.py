"""What the local fleet and a spare say to each other: JSON, one message in each datagram of a socket pair.

A spare is a worker process that has imported an engine and waits. It says `Ready` or `Unfit` once. Then each request
gets one reply, in order: `Fork` gets `Forked` or `Refused`, `Reap` gets `Reaped`, `ReadAhead` gets `HasRead`. Three
descriptors come with `Fork`: the `WorkerSpec` to read, the listening socket, the log to append to. When the fleet's end
is closed the spare ends, and the replicas that it made run on.
"""

import msgspec

# Stands for the replica's id in a spare's command line; each replica writes its own over it. So it is as long as an id
# may be, for a process cannot make its command line longer.
UNNAMED = "spare".ljust(64, ".")
DESCRIPTORS = 3
MOST_READ_AHEAD = 4  # models that a spare keeps something of: those read last; a vocabulary of 49,000 takes 36 MiB


class Ready(msgspec.Struct, tag="ready"):
    """The imports are done; `import_ms` is what they took."""

    import_ms: float


class Unfit(msgspec.Struct, tag="unfit"):
    """A process that has imported this engine cannot be forked safely, now or later; `why` is a sentence. It ends."""

    why: str


class Fork(msgspec.Struct, tag="fork"):
    """Become the replica of that id in a new process."""

    replica_id: str


class Forked(msgspec.Struct, tag="forked"):
    pid: int


class Refused(msgspec.Struct, tag="refused"):
    """This fork failed; the next one may succeed."""

    why: str


class Reap(msgspec.Struct, tag="reap"):
    """Tell how a replica ended, which has; its pid is not given away before."""

    pid: int


class Reaped(msgspec.Struct, tag="reaped"):
    """`code`: exit code; `signal`: the number of the one that killed it; neither where nobody can tell."""

    code: int | None = None
    signal: int | None = None


class ReadAhead(msgspec.Struct, tag="readAhead"):
    """Read the tokenizer of the model in this folder now, so that its replicas need not."""

    model_dir: str


class HasRead(msgspec.Struct, tag="hasRead"):
    """It has, or cannot: then the replicas will tell why."""


Request = Fork | Reap | ReadAhead
Reply = Forked | Refused | Reaped | HasRead
Told = Ready | Unfit | Reply

encode = msgspec.json.encode
decode_request = msgspec.json.Decoder(Request).decode
decode_told = msgspec.json.Decoder(Told).decode
