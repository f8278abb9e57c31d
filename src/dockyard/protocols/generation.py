"""What gateway and replica say to each other: `POST /generate`, `GET /health`, `GET /watch`. JSON, one shape each.

`POST /generate` takes a `GenerateRequest` and replies with newline-delimited `GenerateEvent`s: any number of
`{"text", "ids"}`, then one `{"finish", "usage"}`; or, should the engine fail midway, one `{"error"}`. A request that
cannot be served is refused before the stream with status 400 (its own fault) or 503 (not now) and a `ReplicaError`
as body. Dropping the connection aborts the request. Every call carries the header `x-replica-token`.

`resume` continues a generation that another replica began: the ids of all tokens that came in events so far. The text
already sent for them is derived anew from the ids, so nothing is sent twice and nothing is left out. The
end-of-sequence id is among them only if text that was held back came with it. An event may carry `prefilled`, a number
that goes back with `resume`: with it a greedy text goes on exactly as it would have (ADR 9); without it, nearly so.

`GET /watch` replies with a line of `Health` at once and at every change, counts at most four times a second, until the
replica ends. An open watch, or a `/health` now and then, tells the replica that a server lives.
"""

from typing import Any, Literal

import msgspec

TOKEN_HEADER = "x-replica-token"

FinishReason = Literal["stop", "length", "tool_calls"]


class GenerateRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One prompt, one continuation. Exactly one of `prompt`, `prompt_ids`, `messages` is set."""

    id: str
    prompt: str | None = None
    prompt_ids: list[int] | None = None
    messages: list[dict[str, Any]] | None = None
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0  # 0 keeps the single most probable token
    top_k: int = 50
    max_tokens: int = 16
    stop: list[str] = []
    seed: int | None = None
    resume: list[int] = []
    prefilled: int | None = None  # of the last event that carried it
    json_schema: str | None = None  # the text of a schema that the output must match, end and all
    logprobs: int | None = None  # tell each token's, and those of so many of the most probable ones
    tools: list[dict[str, Any]] = []  # with `messages` only, as the chat template reads them; the text may be calls
    tool_choice: Literal["auto", "required"] = "auto"
    tool_name: str | None = None  # the one tool to be called; `tool_choice` is "required" then
    parallel_tool_calls: bool = True  # False: the text ends with its first call


class Usage(msgspec.Struct):
    """Counts of real tokens. `completion_tokens` includes resumed ones and the end-of-sequence token does not count."""

    prompt_tokens: int
    completion_tokens: int


class ToolCall(msgspec.Struct):
    """A whole call of a tool. `arguments` is the text of a JSON object; `id` is the same on whichever replica."""

    id: str
    name: str
    arguments: str


class Alternative(msgspec.Struct, array_like=True):
    """A token that might have been chosen: its bytes, and the logarithm of its probability."""

    raw: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, array_like=True):
    """A token that was chosen. The bytes of all of them together are the text, but for stop sequences."""

    raw: bytes
    logprob: float
    top: list[Alternative]


class ReplicaError(msgspec.Struct):
    """`reason` is a member of `errors.Reason`; `kind` one of the error kinds (`invalid`, `unavailable`, `failed`)."""

    kind: str
    reason: str
    message: str
    field: str | None = None


class GenerateEvent(msgspec.Struct, omit_defaults=True):
    """Either a piece of text with the ids of the tokens behind it, or the end, or an error.

    `text` may be empty while `ids` is not: a stop sequence or a character may be half there.
    """

    text: str = ""
    ids: list[int] = []
    finish: FinishReason | None = None
    usage: Usage | None = None
    calls: list[ToolCall] = []  # after the text of this event
    logprobs: list[TokenLogprob] = []  # of `ids`, where asked for, but for an end of sequence
    prefilled: int | None = None  # with a first token only; tokens of the prompt that the engine computed at once
    error: ReplicaError | None = None


ReplicaPhase = Literal["starting", "importing", "loading", "warming_up", "ready", "draining", "failed"]


class Health(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A replica's own account. `running` and `waiting` count requests; `capacity` is the most it will run at once.

    `timings` in ms, filled as the phases pass: `importMs`, `loadMs`, `warmUpMs` (`spawnMs` is the server's to tell).
    """

    replica_id: str
    phase: ReplicaPhase
    running: int = 0
    waiting: int = 0
    capacity: int = 0
    engine: str = ""
    compute_type: str = ""
    progress: str = ""
    share: float = 0.0  # of the phase that is over, 0 to 1, where the engine tells
    timings: dict[str, float] = {}
    can_seed: bool = False
    chat_template: bool = False
    largest_batch: int = 0  # rows of the largest batch the engine has run
    failure: ReplicaError | None = None


class Adapter(msgspec.Struct, kw_only=True):
    """What an engine adds to the base's weights as it computes; replicas of one base may share an engine then."""

    folder: str  # adapter_config.json and adapter_model.safetensors
    rank: int
    version_id: str  # replicas of one version never share: a second one is there to compute beside the first
    group: str = ""  # of the replicas that may share an engine; see `engines.groups`
    sockets: str = ""  # the folder of shared engines' sockets; the fleet fills it in


class WorkerSpec(msgspec.Struct, kw_only=True):
    """All that a replica process needs to start; it is handed over as JSON on its standard input.

    `artifact_dir` holds what the engine loads, `model_dir` the imported files (tokenizer, config, chat template).
    """

    replica_id: str
    token: str
    engine: str
    artifact_dir: str
    model_dir: str
    family: str
    device: str
    compute_type: str
    max_batch_size: int
    context_length: int | None
    threads: int  # of each batch
    eos_token_ids: list[int]
    workers: int = 1  # batches of `max_batch_size` that may run at once over the same weights, where the engine can
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None  # comes after the start, before the first token that is chosen
    cache_bytes: int = 0  # for keys and values, where the engine takes all of it at once; 0: the engine's own choice
    gpus: int = 0  # how many it computes on
    gpu_bytes: int = 0  # what it needs on each of them
    gpu_ids: list[str] = []  # their UUIDs; the fleet fills them in
    gpu_share: float = 1.0  # how much of their memory is free for it; likewise
    adapter: Adapter | None = None
    orphan_after_s: float = 25.0  # so that it is gone within 30 s

    def gpu_environment(self) -> dict[str, str]:
        """What a replica's environment must hold before anything asks for GPUs: it sees its own, the first as 0.

        On a CPU it sees none, for libraries that would take the first one unasked.
        """
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpu_ids), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


encode_request = msgspec.json.Encoder()
decode_event = msgspec.json.Decoder(GenerateEvent)
decode_health = msgspec.json.Decoder(Health)
