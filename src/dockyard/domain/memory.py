"""What one replica needs of memory, by part: weights, cache, what a step works with, and the engine itself.

Each number of a CPU is made of what the engines' own code allocates and of constants that were measured against the
peaks of real replicas (`python -m bench.memory_fit`; docs/concepts/devices-and-fit.md has the table).
"""

from dataclasses import dataclass

from dockyard.domain.adapter_slots import bytes_of_copies, bytes_of_slots
from dockyard.domain.batching import rows_on_a_cpu
from dockyard.domain.card import Dimensions, Family, ModelCard
from dockyard.domain.compatibility import takes_adapters
from dockyard.domain.devices import GIB, MIB
from dockyard.domain.spec import EngineName

# Bytes per parameter as computed. int8 keeps one float32 scale per row: about 2 % on top for rows of some hundred.
_WEIGHT_BYTES = {
    "float32": 4.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "int8_float16": 1.02,
    "int8_float32": 1.02,
    "none": 0.0,
}
# Bytes of what is computed from the weights: keys and values, activations.
_COMPUTED_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8_float16": 2, "int8_float32": 4, "none": 0}
_CARD_KV_BYTES = 2  # the card counts keys and values in 16 bit

# The engine's own memory without a model: interpreter and libraries; on a GPU the CUDA context and the kernels'
# workspace. Measured for the CPU after a first generation with gpt2-kjv (vLLM: all its processes); GPUs are estimates.
_OVERHEAD = {
    (EngineName.CTRANSLATE2, "cpu"): 50 * MIB,
    (EngineName.TRANSFORMERS, "cpu"): 372 * MIB,
    (EngineName.VLLM, "cpu"): 1080 * MIB,
    (EngineName.ECHO, "cpu"): 48 * MIB,
    (EngineName.CTRANSLATE2, "cuda"): 500 * MIB,
    (EngineName.TRANSFORMERS, "cuda"): 900 * MIB,
    (EngineName.VLLM, "cuda"): 2 * GIB,
    (EngineName.ECHO, "cuda"): 0,
}
_TOKENIZER_ENTRY = 1024  # bytes: SmolLM2's 49,152 entries are 39 MiB in `tokenizers` and 8 in CTranslate2's vocabulary

# CTranslate2 on a CPU packs each matrix for its products (MKL), and has both forms while it loads. In weights as
# computed: resident, and most while loading. The stored type, where it is another, leaves so much of itself in between.
_PACKED = {"float32": (1.13, 2.1), "int8_float32": (1.2, 2.0)}
_UNPACKED = (1.0, 1.1)
_PACKED_STORED = (0.8, 0.6)

_VLLM_BLOCK = 128  # tokens, on a CPU

# The C library hands blocks above this back at once; smaller ones leave holes between those that stay (mallopt(3),
# M_MMAP_THRESHOLD on 64 bit). Holes as a share of the cache whose growth makes them; where rows join, of all of it:
_HOLE_LIMIT = 32 * MIB
_HOLES = {EngineName.CTRANSLATE2: 0.25, EngineName.TRANSFORMERS: 1.4}
_HOLES_FLOAT32 = 0.4  # of CTranslate2's decoders
_HOLES_JOINING = 0.75

# What Transformers gives no fused attention (its `_supports_sdpa`), or one with a mask for each head: there all scores
# are in memory, so many times over. Measured on random models of 4 layers, 8 rows of 700 tokens.
_EAGER = {
    "BloomForCausalLM": 4,
    "CodeGenForCausalLM": 4,
    "FalconForCausalLM": 2,
    "GPTJForCausalLM": 4,
    "GPTNeoForCausalLM": 4,
    "Gemma2ForCausalLM": 2,
    "MptForCausalLM": 3,
}

_CHUNK_TOKENS = 8192  # vLLM computes a prompt in pieces of so many tokens at most
# Transformers reads prompts of decoders in pieces of so many tokens of all rows together (`engines/joining.py`), and
# each row of the cache has so many columns that are not used yet (`engines/row_cache.py`).
_CHUNK_JOINING = 2048
_SPARE_COLUMNS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes that one replica needs on all of its `gpus` together, by part. A CPU counts as one.

    `context_length` in tokens is what cache and work were computed for.
    """

    weights_bytes: int
    cache_bytes: int
    work_bytes: int  # activations of a full batch's prompts, or what loading takes beyond the rest if that is more
    overhead_bytes: int
    context_length: int
    gpus: int = 1

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.work_bytes + self.overhead_bytes

    @property
    def bytes_each(self) -> int:
        """On each GPU."""
        return -(-self.total_bytes // self.gpus)


def memory_need(
    card: ModelCard, engine: EngineName, compute: str, device_kind: str, batch: int, context: int, gpus: int = 1
) -> MemoryNeed:
    """What one replica needs for a full batch of `batch` rows of `context` tokens each, computing in `compute`.

    On a CPU the reserve's rows come on top. `gpus` share the weights; each has the engine's overhead, and keys and
    values of at least one head.
    """
    rows = rows_on_a_cpu(engine, batch) if device_kind == "cpu" else batch
    row_bytes = cache_bytes_of_a_row(card, engine, compute, context, gpus)
    cache = row_bytes * rows
    weights, loading = _weights(card, engine, compute, device_kind)
    if _joins(card, engine):
        work = _joining(card, compute, rows, context) + _logits(card, rows)
        work += _holes_joining(card, compute, rows, context) if device_kind == "cpu" else 0
    else:
        # The reserve's rows begin when those of the batch are past their prompts.
        work = _activations(card, engine, compute, batch, context, gpus) + _logits(card, batch) * gpus
        work += _holes(card, engine, compute, batch, rows, context) if device_kind == "cpu" else 0
    of_adapters, copies = _adapters(card, engine, compute, device_kind, gpus)
    work += copies
    return MemoryNeed(
        weights_bytes=weights + of_adapters,
        cache_bytes=cache,
        work_bytes=max(work, loading - weights - cache),
        overhead_bytes=(_OVERHEAD[engine, device_kind] + _tokenizer(card, engine, device_kind)) * gpus,
        context_length=context,
        gpus=gpus,
    )


def cache_bytes_of_a_row(card: ModelCard, engine: EngineName, compute: str, context: int, gpus: int = 1) -> int:
    """Keys and values of `context` tokens on all of `gpus`; an encoder-decoder has as many of the prompt."""
    layers = max(1, card.layers)
    windowed, window = _windowed_layers(card, engine), _dimensions(card).window or context
    tokens_of_layers = (layers - windowed) * context + windowed * min(context, window)
    scale = _COMPUTED_BYTES[compute] / _CARD_KV_BYTES * _copies_of_heads(card, engine, gpus)
    own = card.kv_bytes_per_token * scale * tokens_of_layers / layers
    return int(own + card.cross_kv_bytes_per_token * _COMPUTED_BYTES[compute] / _CARD_KV_BYTES * context)


def least_cache_of_vllm(card: ModelCard, compute: str, context: int) -> int:
    """What it needs on a CPU to begin at all: room for one row of `context` tokens. Its cache is handed out in blocks,
    and one of them never is.
    """
    blocks = -(-context // _VLLM_BLOCK) + 1
    return cache_bytes_of_a_row(card, EngineName.VLLM, compute, blocks * _VLLM_BLOCK)


def _windowed_layers(card: ModelCard, engine: EngineName) -> int:
    """Layers whose cache ends at the window: Transformers' cache is told each layer's kind.

    CTranslate2 serves no context beyond a window (`ModelCard.plain_context`). vLLM's pool is counted as if it had none.
    """
    return min(card.layers, _dimensions(card).window_layers) if engine is EngineName.TRANSFORMERS else 0


def _copies_of_heads(card: ModelCard, engine: EngineName, gpus: int) -> float:
    """CTranslate2 keeps keys and values once for each head that asks; vLLM has at least one head of them on a GPU."""
    dimensions = _dimensions(card)
    if engine is EngineName.CTRANSLATE2:
        return dimensions.heads / dimensions.kv_heads
    return max(1.0, gpus / dimensions.kv_heads)


def _weights(card: ModelCard, engine: EngineName, compute: str, device_kind: str) -> tuple[int, int]:
    """Bytes that stay, and the most while loading."""
    computed = card.parameters * _WEIGHT_BYTES[compute]
    if device_kind != "cpu":
        return int(computed), 0  # the host has what loading takes
    stored = 0 if card.dtype == compute or compute.startswith("int8") else card.weights_bytes
    if engine is EngineName.CTRANSLATE2:
        (resident, most), (left, between) = _PACKED.get(compute, _UNPACKED), _PACKED_STORED
        return int(resident * computed + left * stored), int(most * computed + between * stored)
    return int(computed), int(computed) + stored  # the file stays mapped until all of it is converted


def _adapters(card: ModelCard, engine: EngineName, compute: str, device_kind: str, gpus: int) -> tuple[int, int]:
    """Of an engine that adds adapters while it computes: the slots and the adapter itself, and copies for a step."""
    if engine is not EngineName.VLLM or card.adapter is None or not takes_adapters(card):
        return 0, 0
    shape, size, rank = _dimensions(card), _COMPUTED_BYTES[compute], card.adapter.rank
    slots = bytes_of_slots(shape, max(1, card.layers), rank, size, gpus)
    if device_kind != "cpu":
        return slots, 0  # the adapter itself is in the host's memory
    return slots + card.adapter.parameters * size, bytes_of_copies(shape, rank)


def _joins(card: ModelCard, engine: EngineName) -> bool:
    """Whether rows join a batch of Transformers' that runs."""
    return engine is EngineName.TRANSFORMERS and card.family is Family.DECODER


def _joining(card: ModelCard, compute: str, rows: int, context: int) -> int:
    """What a piece of prompts needs that sees all of the context, and rows that are copied beside the others."""
    size, shape = _COMPUTED_BYTES[compute], _dimensions(card)
    tokens = min(rows * context, max(rows, _CHUNK_JOINING))
    states, inner, seen = size * tokens * 6 * shape.width, size * tokens * 4 * shape.inner, tokens * context
    # Fused attention wants keys and values once for each head that asks, in one layer at a time.
    repeated = 2 * size * rows * context * shape.heads * shape.head_width if shape.heads > shape.kv_heads else 0
    eager = _EAGER.get(card.architecture, 0) * size * shape.heads * seen
    mask = (1 + size) * seen
    row, spare = (cache_bytes_of_a_row(card, EngineName.TRANSFORMERS, compute, of) for of in (context, _SPARE_COLUMNS))
    # A layer of the prompts' cache goes when it has been copied.
    return states + max(inner, repeated + eager) + mask + rows * (row // max(1, card.layers) + spare)


def _activations(card: ModelCard, engine: EngineName, compute: str, batch: int, context: int, gpus: int) -> int:
    """What the prompts of a batch that starts at once need beside weights and cache, in the layer that needs most."""
    size, tokens = _COMPUTED_BYTES[compute], batch * context
    shape = _dimensions(card)
    if engine is EngineName.ECHO:
        return 0
    if engine is EngineName.VLLM:
        tokens = min(tokens, max(context, _CHUNK_TOKENS))
    if engine is not EngineName.CTRANSLATE2:
        states, inner = size * tokens * 6 * shape.width * gpus, size * tokens * 4 * shape.inner
        scores = _scores(card, engine, batch, context, size)
        return states + (max(inner, scores) if _by_distance(card) else inner + scores)
    # Attention has its input, what the queries find and the output, and queries, keys and values from one product; the
    # feed-forward layers have two inner tensors, with int8 on a CPU a third one: the products before they are scaled.
    projected = shape.width * (shape.heads + 2 * shape.kv_heads) // shape.heads
    attention = size * tokens * (3 * shape.width + projected) + _scores(card, engine, batch, context, size)
    inner = 2 + (compute == "int8_float32")
    return max(attention, size * tokens * (4 * shape.width + inner * shape.inner))


def _scores(card: ModelCard, engine: EngineName, batch: int, context: int, size: int) -> int:
    """Of every token for every other, where they are all in memory at once; else the mask alone."""
    pairs = batch * context * context
    of_heads = size * _dimensions(card).heads * pairs
    if engine is EngineName.CTRANSLATE2:
        steps = 5 if of_heads <= _HOLE_LIMIT else 3  # in which the biases are made, for one row; small ones are kept
        return of_heads + (steps * of_heads // batch if _by_distance(card) else 0)
    if engine is EngineName.VLLM:
        return 0
    if _by_distance(card):
        return 2 * of_heads  # the bias, and the same with the mask
    return (1 + size) * pairs


def _by_distance(card: ModelCard) -> bool:
    """T5 has a bias for each pair of tokens."""
    return card.context_length is None and card.family is Family.ENCODER_DECODER


def _logits(card: ModelCard, batch: int) -> int:
    """Of one step in float32, as computed and as sampled from."""
    return 2 * 4 * batch * card.vocab_size


def _holes(card: ModelCard, engine: EngineName, compute: str, batch: int, rows: int, context: int) -> int:
    """Memory of a CPU that is free, and of no use, between blocks of the cache."""
    share = _HOLES.get(engine, 0.0)
    if engine is EngineName.CTRANSLATE2 and compute == "float32" and card.family is Family.DECODER:
        share = _HOLES_FLOAT32
    layers = max(1, card.layers)
    if engine is EngineName.CTRANSLATE2:  # keys and values of a layer are two blocks
        block = cache_bytes_of_a_row(card, engine, compute, context) * rows // (2 * layers)
        return int(share * 2 * layers * min(block, _HOLE_LIMIT))
    # Hidden states, which come and go between the blocks that stay.
    hidden = max(1, _COMPUTED_BYTES[compute] * batch * context * _dimensions(card).width)
    cache = cache_bytes_of_a_row(card, engine, compute, context) * batch
    return int(share * cache * min(1.0, _HOLE_LIMIT / hidden))


def _holes_joining(card: ModelCard, compute: str, rows: int, context: int) -> int:
    """The same where rows join: of what their prompts' cache left, and of what was too narrow for the next columns."""
    cache = cache_bytes_of_a_row(card, EngineName.TRANSFORMERS, compute, context) * rows
    block = cache / (2 * max(1, card.layers))
    return int(_HOLES_JOINING * cache * min(1.0, _HOLE_LIMIT / max(1.0, block)))


def _tokenizer(card: ModelCard, engine: EngineName, device_kind: str) -> int:
    """Of the host's memory."""
    if device_kind != "cpu" or engine is EngineName.ECHO:
        return 0
    return _TOKENIZER_ENTRY * max(card.vocab_size, card.tokenizer_size or 0)


def _dimensions(card: ModelCard) -> Dimensions:
    """Where they are not known, those of a decoder whose heads of 64 all have keys and values of their own."""
    if card.dimensions is not None:
        return card.dimensions
    width = max(64, card.kv_bytes_per_token // (2 * _CARD_KV_BYTES * max(1, card.layers)))
    heads = width // 64
    known = 0 if card.family is Family.DECODER and not card.kv_bytes_per_token else width
    return Dimensions(width=known, heads=heads, kv_heads=heads, head_width=64, inner=4 * known)
