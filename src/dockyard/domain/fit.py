"""Does a model fit a device, and at which context length; does the host have room for one more replica.

Need of one replica = weights at the chosen precision + cache for one full batch + the engine's overhead.
"""

from dataclasses import dataclass

from dockyard.domain.batching import rows_on_a_cpu
from dockyard.domain.card import ModelCard
from dockyard.domain.compatibility import compute_type
from dockyard.domain.devices import DEVICES, GIB, MIB, Device, Host
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import Invalid, Reason

# Bytes per parameter as computed. int8 keeps one float32 scale per row: about 2 % on top for rows of some hundred.
_WEIGHT_BYTES = {
    "float32": 4.0,
    "float16": 2.0,
    "bfloat16": 2.0,
    "int8_float16": 1.02,
    "int8_float32": 1.02,
    "none": 0.0,
}
# Bytes per cached key or value, relative to the 16 bit that the card counts in.
_CACHE_SCALE = {"float32": 2.0, "float16": 1.0, "bfloat16": 1.0, "int8_float16": 1.0, "int8_float32": 2.0, "none": 0.0}
# The engine's own memory: interpreter, libraries, and on a GPU the CUDA context and kernels' workspace.
_OVERHEAD = {
    (EngineName.CTRANSLATE2, "cpu"): 80 * MIB,
    (EngineName.TRANSFORMERS, "cpu"): 450 * MIB,
    (EngineName.VLLM, "cpu"): 2 * GIB,
    (EngineName.ECHO, "cpu"): 48 * MIB,
    (EngineName.CTRANSLATE2, "cuda"): 500 * MIB,
    (EngineName.TRANSFORMERS, "cuda"): 900 * MIB,
    (EngineName.VLLM, "cuda"): 2 * GIB,
    (EngineName.ECHO, "cuda"): 0,
}
USABLE_SHARE = 0.92  # of a device's memory; the rest is the driver's and fragmentation
CONTEXT_FLOOR = 2048  # tokens; a model that cannot be given this much (or its own, if shorter) does not fit
CONTEXT_STEP = 256
UNBOUNDED_CONTEXT = 512  # tokens taken for an architecture without a bound, when its cache is estimated
HOST_CONTEXT = 1024  # on a CPU the cache grows as it is used; a full batch of this length is kept free for it
HOST_RESERVE = 256 * MIB  # left to the rest of the machine


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Bytes that one replica needs, by part. `context_length` in tokens is what the cache was computed for."""

    weights_bytes: int
    cache_bytes: int
    overhead_bytes: int
    context_length: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.overhead_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The need on a device, and the context length that it leaves room for (None: the model has no bound)."""

    need: MemoryNeed
    context_length: int | None
    warnings: tuple[str, ...] = ()


def memory_need(
    card: ModelCard, engine: EngineName, compute: str, device_kind: str, batch: int, context: int
) -> MemoryNeed:
    """What one replica needs with `batch` rows of `context` tokens each, computing in `compute`."""
    per_token = card.kv_bytes_per_token + card.cross_kv_bytes_per_token
    # Logits of one step in float32, twice: as computed and as sampled from.
    logits = 2 * 4 * batch * card.vocab_size
    return MemoryNeed(
        weights_bytes=int(card.parameters * _WEIGHT_BYTES[compute]),
        cache_bytes=int(per_token * _CACHE_SCALE[compute] * batch * context),
        overhead_bytes=_OVERHEAD[engine, device_kind] + logits,
        context_length=context,
    )


def fit_device(card: ModelCard, engine: EngineName, quantization: Quantization, device: Device, batch: int) -> Fit:
    """Whether `card` fits `device` with full batches of `batch`, and how long its context can be there.

    A context that is too long for the memory is shortened, down to `CONTEXT_FLOOR`, with a warning. Raises `Invalid`
    (DOES_NOT_FIT_DEVICE), naming need, size, and the smallest device that would do.
    """
    wanted = card.context_length or UNBOUNDED_CONTEXT
    context = _context_on(card, engine, quantization, device, batch)
    if context is None:
        raise _does_not_fit(card, engine, quantization, device, batch)
    need = memory_need(card, engine, compute_type(engine, quantization, "cuda"), "cuda", batch, context)
    if card.context_length is None or context == wanted:
        return Fit(need=need, context_length=card.context_length)
    shortened = (
        f"the context is {context} tokens instead of the model's {wanted}: "
        f"a full batch of {batch} has no more room on {device.name}"
    )
    return Fit(need=need, context_length=context, warnings=(shortened,))


def host_need(card: ModelCard, engine: EngineName, compute: str, batch: int) -> MemoryNeed:
    """What one replica is expected to take of the host's memory when the CPU stands in."""
    context = min(card.context_length or UNBOUNDED_CONTEXT, HOST_CONTEXT)
    return memory_need(card, engine, compute, "cpu", rows_on_a_cpu(engine, batch), context)


def replicas_that_fit(host: Host, need_bytes: int) -> int:
    """How many more replicas of `need_bytes` each the host has free memory for, now."""
    free = host.available_bytes - HOST_RESERVE
    return max(0, free // max(1, need_bytes))


def in_gib(count: int) -> str:
    """Bytes for people: `0.52 GiB`."""
    return f"{count / GIB:.2f} GiB"


def _context_on(
    card: ModelCard, engine: EngineName, quantization: Quantization, device: Device, batch: int
) -> int | None:
    """The longest context, in tokens, for which a full batch fits; None if it is below what is worth serving."""
    wanted = card.context_length or UNBOUNDED_CONTEXT
    compute = compute_type(engine, quantization, "cuda")
    room = int(device.total_gpu_bytes * USABLE_SHARE)
    if memory_need(card, engine, compute, "cuda", batch, wanted).total_bytes <= room:
        return wanted
    fixed = memory_need(card, engine, compute, "cuda", batch, 0).total_bytes
    per_token = memory_need(card, engine, compute, "cuda", batch, 1).total_bytes - fixed
    longest = (room - fixed) // max(1, per_token) // CONTEXT_STEP * CONTEXT_STEP
    floor = min(wanted, CONTEXT_FLOOR)
    return longest if card.context_length is not None and longest >= floor else None


def _does_not_fit(
    card: ModelCard, engine: EngineName, quantization: Quantization, device: Device, batch: int
) -> Invalid:
    floor = min(card.context_length or UNBOUNDED_CONTEXT, CONTEXT_FLOOR)
    need = memory_need(card, engine, compute_type(engine, quantization, "cuda"), "cuda", batch, floor)
    able = [other for other in DEVICES.values() if _context_on(card, engine, quantization, other, batch) is not None]
    smallest = min(able, key=lambda other: (other.total_gpu_bytes, other.usd_per_hour), default=None)
    way_out = (
        f"the smallest device that fits is {smallest.name}"
        if smallest
        else "no device fits; lower scalingParameters.maxBatchSize, or quantize to int8_float16 on ctranslate2"
    )
    return Invalid(
        f"the model needs {in_gib(need.total_bytes)} (weights {in_gib(need.weights_bytes)}, cache for a batch of "
        f"{batch} × {floor} tokens {in_gib(need.cache_bytes)}, engine {in_gib(need.overhead_bytes)}) and "
        f"{device.name} has {in_gib(device.total_gpu_bytes)}; {way_out}",
        reason=Reason.DOES_NOT_FIT_DEVICE,
        field="deviceType",
    )
