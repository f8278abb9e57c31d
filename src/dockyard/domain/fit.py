"""Does a model fit a device, and at which context length; does the host have room for one more replica.

What a replica needs is `domain/memory.py`'s.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from dockyard.domain.card import ModelCard
from dockyard.domain.compatibility import ARCHITECTURES, QUANTIZATIONS, card_on, compute_type, install_command
from dockyard.domain.deployment import Runtime
from dockyard.domain.devices import DEVICES, GIB, MIB, Device, Host, Placement, on_gpus, on_the_cpu, place
from dockyard.domain.gpus import USABLE_SHARE, engines_to_join, sets_free
from dockyard.domain.memory import MemoryNeed, least_cache_of_vllm, memory_need
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import Invalid, Reason

CONTEXT_FLOOR = 2048  # tokens; a model that cannot be given this much (or its own, if shorter) does not fit
CONTEXT_STEP = 256
UNBOUNDED_CONTEXT = 512  # tokens taken for an architecture without a bound, when its cache is estimated
HOST_CONTEXT = 1024  # on a CPU the cache grows as it is used; a full batch of this length is kept free for it
HOST_RESERVE = 256 * MIB  # left to the rest of the machine
# What a replica on GPUs takes of the host's memory: interpreter, libraries, the driver's own, a shard of weights on its
# way. An estimate.
HOST_SHARE = 2 * GIB
SEAT = 128 * MIB  # what one takes that joins an engine of others, beside its adapter: a process of some 60 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The need on a device, and the context length that it leaves room for (None: the model has no bound).

    `need.gpus` is the degree of tensor parallelism: how many of the device's GPUs share one replica.
    """

    need: MemoryNeed
    context_length: int | None
    warnings: tuple[str, ...] = ()


def fit_device(
    card: ModelCard,
    engine: EngineName,
    quantization: Quantization,
    device: Device,
    batch: int,
    absent: Collection[EngineName] = (),
) -> Fit:
    """Whether `card` fits `device` with full batches of `batch`, and how long its context can be there.

    A context that is too long for the memory is shortened, down to `CONTEXT_FLOOR`, with a warning. Raises `Invalid`
    (DOES_NOT_FIT_DEVICE), naming need, size, the smallest device that would do, and what else would help; `absent`
    are the engines that the server lacks.
    """
    wanted = card.context_length or UNBOUNDED_CONTEXT
    context = _context_on(card, engine, quantization, device, batch)
    if context is None:
        raise _does_not_fit(card, engine, quantization, device, batch, absent)
    need = _need_on(card, engine, quantization, device, batch, context)
    warnings: list[str] = []
    if need.gpus < device.gpus:
        warnings.append(
            f"{engine} uses {need.gpus} of the {device.gpus} GPUs of {device.name}: {_why_not_all(card, engine)}"
        )
    if card.context_length is None or context == wanted:
        return Fit(need=need, context_length=card.context_length, warnings=tuple(warnings))
    warnings.append(
        f"the context is {context} tokens instead of the model's {wanted}: "
        f"a full batch of {batch} has no more room on {device.name}"
    )
    return Fit(need=need, context_length=context, warnings=tuple(warnings))


def place_model(
    card: ModelCard,
    engine: EngineName,
    quantization: Quantization,
    device: Device,
    batch: int,
    host: Host,
    *,
    strict: bool,
    absent: Collection[EngineName] = (),
) -> tuple[Placement, Fit]:
    """What of the host stands in for `device`, and how the model fits there.

    It must fit the device as published. On the host's GPUs it must fit what they have, which may shorten its context;
    where it does not, the CPU stands in, or the device is not available (`strict`).
    """
    published = fit_device(card, engine, quantization, device, batch, absent)
    placement = place(device, host, strict=strict)
    if placement.kind == "cpu":
        return placement, published
    here = placement.device
    try:
        fit = fit_device(card, engine, quantization, here, batch)
    except Invalid:
        why = (
            f"the model needs {in_gib(published.need.bytes_each)} on each of them, more than the {USABLE_SHARE:.0%} of "
            f"{in_gib(here.gpu_bytes)} that {here.gpu} of this host has for a model"
        )
        return on_the_cpu(device, why, strict=strict), published
    return on_gpus(here, fit.need.gpus), fit


def gpus_used(card: ModelCard, engine: EngineName, gpus: int) -> int:
    """How many of a device's `gpus` one replica computes on: vLLM shares the heads out, the other engines use one.

    vLLM wants as many heads on each GPU, and each head of keys and values on as many GPUs.
    """
    shape = card.dimensions
    if engine is not EngineName.VLLM or shape is None:
        return 1

    def shared_evenly(count: int) -> bool:
        kv_heads = shape.kv_heads
        return (
            shape.heads % count == 0
            and shape.inner % count == 0
            and (kv_heads % count == 0 if kv_heads >= count else count % kv_heads == 0)
        )

    return next(count for count in range(gpus, 0, -1) if count == 1 or shared_evenly(count))


def host_need(card: ModelCard, engine: EngineName, compute: str, batch: int, served: int | None = None) -> MemoryNeed:
    """What one replica is expected to take of the host's memory when the CPU stands in.

    `served`: the context that it serves, where that is not the model's own. vLLM takes its cache when it starts, and at
    least so much that one row of that length has room.
    """
    longest = served or card.context_length or UNBOUNDED_CONTEXT
    need = memory_need(card, engine, compute, "cpu", batch, min(longest, HOST_CONTEXT))
    if engine is not EngineName.VLLM:
        return need
    return replace(need, cache_bytes=max(need.cache_bytes, least_cache_of_vllm(card, compute, longest)))


def cache_on_a_cpu(card: ModelCard, runtime: Runtime, batch: int) -> int:
    """Bytes for the keys and values of an engine that takes them at its start, on a CPU: vLLM; 0 for the others.

    A full batch as the host's need counts it, and at least one row as long as what is served.
    """
    if runtime.engine is not EngineName.VLLM or runtime.device != "cpu":
        return 0
    return host_need(card, runtime.engine, runtime.compute_type, batch, runtime.context_length).cache_bytes


def replicas_that_fit(host: Host, need_bytes: int) -> int:
    """How many more replicas of `need_bytes` each the host has free memory for, now."""
    free = host.available_bytes - HOST_RESERVE
    return max(0, free // max(1, need_bytes))


@dataclass(frozen=True, slots=True)
class Room:
    """How many more replicas the host has room for. `settling`: what is taken is not known yet, or is coming free."""

    count: int
    settling: bool = False


def seat_bytes(card: ModelCard | None) -> int:
    """What a replica takes of the host's memory that joins an engine of others; this one has the adapter in float32 at
    most.
    """
    return SEAT + (4 * card.adapter.parameters if card is not None and card.adapter is not None else 0)


def room_on_gpus(host: Host, runtime: Runtime, group: str = "", version_id: str = "", seat_bytes: int = SEAT) -> Room:
    """A replica has its GPUs for itself, from before its start until their memory is free again; but one of a `group`
    joins an engine of it that has no replica of its version yet, and takes none.
    """
    joining, left = _joining(host, len(engines_to_join(host.gpus, group, version_id)), seat_bytes)
    free = sets_free(host.gpus, runtime.gpus, runtime.bytes_each)
    return Room(joining + min(free, replicas_that_fit(left, HOST_SHARE)), any(gpu.ending for gpu in host.gpus))


def room_on_a_cpu(host: Host, need_bytes: int, growing: int, engines: int = 0, seat_bytes: int = SEAT) -> Room:
    """`growing` replicas have not taken yet what they need; one that joins one of `engines` needs a seat alone."""
    taken = replace(host, available_bytes=host.available_bytes - growing * need_bytes)
    joining, left = _joining(taken, engines, seat_bytes)
    return Room(joining + replicas_that_fit(left, need_bytes), growing > 0)


def _joining(host: Host, engines: int, seat_bytes: int) -> tuple[int, Host]:
    """How many replicas that join one of `engines` the host has memory for, and the host as they leave it."""
    count = min(engines, replicas_that_fit(host, seat_bytes))
    return count, replace(host, available_bytes=host.available_bytes - count * seat_bytes)


def in_gib(count: int) -> str:
    """Bytes for people: `0.52 GiB`."""
    return f"{count / GIB:.2f} GiB"


def smallest_device(card: ModelCard, engine: EngineName, quantization: Quantization, batch: int) -> Device | None:
    """Of those that fit: the one with the least memory that the engine can use, then the cheapest."""

    def size(device: Device) -> tuple[int, float]:
        return device.total_gpu_bytes, device.usd_per_hour

    able = [device for device in DEVICES.values() if _context_on(card, engine, quantization, device, batch) is not None]
    return min(able, key=size, default=None)


def _context_on(
    card: ModelCard, engine: EngineName, quantization: Quantization, device: Device, batch: int
) -> int | None:
    """The longest context, in tokens, for which a full batch fits; None if it is below what is worth serving."""
    wanted = card.context_length or UNBOUNDED_CONTEXT
    room = int(device.gpu_bytes * USABLE_SHARE)

    def fits(context: int) -> bool:
        return _need_on(card, engine, quantization, device, batch, context).bytes_each <= room

    if fits(wanted):
        return wanted
    floor = min(wanted, CONTEXT_FLOOR)
    if card.context_length is None or not fits(floor):
        return None
    low, high = floor // CONTEXT_STEP, -(-wanted // CONTEXT_STEP)  # fits, does not fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * CONTEXT_STEP) else (low, middle)
    return max(floor, low * CONTEXT_STEP)


def _need_on(
    card: ModelCard, engine: EngineName, quantization: Quantization, device: Device, batch: int, context: int
) -> MemoryNeed:
    compute = compute_type(engine, quantization, "cuda", card, device.capability)
    return memory_need(card, engine, compute, "cuda", batch, context, gpus_used(card, engine, device.gpus))


def _why_not_all(card: ModelCard, engine: EngineName) -> str:
    if engine is not EngineName.VLLM:
        known = ARCHITECTURES.get(card.architecture)
        other = "; vllm shares a model out over several" if known and EngineName.VLLM in known.engines else ""
        return f"it runs a replica on one{other}"
    shape = card.dimensions
    told = f" ({shape.heads} heads, {shape.kv_heads} of keys and values)" if shape else ""
    return f"the model's heads cannot be shared out evenly over more{told}"


def _does_not_fit(
    card: ModelCard,
    engine: EngineName,
    quantization: Quantization,
    device: Device,
    batch: int,
    absent: Collection[EngineName],
) -> Invalid:
    floor = min(card.context_length or UNBOUNDED_CONTEXT, CONTEXT_FLOOR)
    need = _need_on(card, engine, quantization, device, batch, floor)
    each = f" on each of {need.gpus} GPUs" if need.gpus > 1 else ""
    others = "" if device.gpus == need.gpus else f", of which {engine} uses {need.gpus}"
    count = f"{device.gpus} × " if device.gpus > 1 else ""
    smallest = smallest_device(card, engine, quantization, batch)
    way_out = (
        f"the smallest device that fits is {smallest.name}"
        if smallest
        else f"no device fits with {engine}; lower scalingParameters.maxBatchSize"
    )
    instead = "".join(f", or {other}" for other in _instead(card, engine, quantization, device, batch, absent))
    return Invalid(
        f"the model needs {in_gib(need.bytes_each)}{each} (in all: weights {in_gib(need.weights_bytes)}, cache for a "
        f"batch of {batch} × {floor} tokens {in_gib(need.cache_bytes)}, activations {in_gib(need.work_bytes)}, engine "
        f"{in_gib(need.overhead_bytes)}) and {device.name} has {count}{in_gib(device.gpu_bytes)}{others}, "
        f"{USABLE_SHARE:.0%} of it for a model; {way_out}{instead}",
        reason=Reason.DOES_NOT_FIT_DEVICE,
        field="deviceType",
    )


def _instead(
    card: ModelCard,
    engine: EngineName,
    quantization: Quantization,
    device: Device,
    batch: int,
    absent: Collection[EngineName],
) -> Iterator[str]:
    """Other ways to run the model that would do: on the device that was asked for, else on the smallest that fits."""
    known = ARCHITECTURES.get(card.architecture)
    for other in known.engines if known else ():
        try:
            served, _ = card_on(other, card)
        except Invalid:
            continue
        for precision in QUANTIZATIONS[other]:
            if (other, precision) == (engine, quantization):
                continue
            fits_here = _context_on(served, other, precision, device, batch) is not None
            fitting = device if fits_here else smallest_device(served, other, precision, batch)
            if fitting is not None:
                told = other if precision is Quantization.NONE else f"{precision} on {other}"
                lacking = f" (after `{install_command(other)}` on the server)" if other in absent else ""
                yield f"{told} with {fitting.name}{lacking}"
