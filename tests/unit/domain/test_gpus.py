"""Which of the host's GPUs a replica gets, how they stand in for a device, and what is computed on them."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.domain.cards import LARGE, SMALL

from dockyard.domain.compatibility import compute_type, half_precision
from dockyard.domain.deployment import Runtime
from dockyard.domain.devices import DEVICES, GIB, Host, place
from dockyard.domain.fit import (
    HOST_RESERVE,
    HOST_SHARE,
    SEAT,
    Room,
    fit_device,
    place_model,
    room_on_a_cpu,
    room_on_gpus,
)
from dockyard.domain.gpus import EngineOnGpus, HostGpu, choose_gpus, engines_to_join, sets_free
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import Invalid, Reason

NONE = Quantization.NONE


def gpu(index: int, gib: float = 22, **changes: Any) -> HostGpu:
    plain = HostGpu(
        uuid=f"GPU-{index}",
        index=index,
        model="A10G",
        total_bytes=int(gib * GIB),
        free_bytes=int(gib * GIB),
        capability=(8, 6),
    )
    return replace(plain, **changes)


def host(*gpus: HostGpu, **changes: Any) -> Host:
    return Host(cores=8, memory_bytes=64 * GIB, available_bytes=60 * GIB, gpus=gpus, **changes)


def indices(chosen: tuple[HostGpu, ...] | None) -> list[int] | None:
    return None if chosen is None else [gpu.index for gpu in chosen]


@pytest.mark.parametrize(
    ("gpus", "count", "need_gib", "chosen"),
    [
        ((), 1, 0, None),
        ((gpu(0), gpu(1)), 1, 10, [0]),
        ((gpu(0, replica_id="rp"), gpu(1)), 1, 10, [1]),
        ((gpu(0, replica_id="rp", ending=True),), 1, 10, None),
        ((gpu(0, fault="lost"), gpu(1)), 1, 10, [1]),
        ((gpu(0), gpu(1)), 1, 21, None),  # 92 % of 22 are 20.2
        # what others use is counted by what they leave, and one that nobody uses is better
        ((gpu(0, free_bytes=12 * GIB, others_bytes=10 * GIB), gpu(1)), 1, 10, [1]),
        ((gpu(0, free_bytes=12 * GIB, others_bytes=10 * GIB),), 1, 10, [0]),
        ((gpu(0, free_bytes=9 * GIB, others_bytes=13 * GIB),), 1, 10, None),
        ((gpu(0, 80, model="H100"), gpu(1)), 1, 10, [1]),  # the large one is left for who needs it
        ((gpu(0, 80, model="H100"), gpu(1)), 1, 30, [0]),
        ((gpu(0), gpu(1, model="L4"), gpu(2)), 2, 10, [0, 2]),  # of one kind
        ((gpu(0), gpu(1, model="L4")), 2, 10, None),
    ],
)
def test_a_replica_gets_free_gpus_of_one_kind(
    gpus: tuple[HostGpu, ...], count: int, need_gib: float, chosen: list[int] | None
) -> None:
    assert indices(choose_gpus(gpus, count, int(need_gib * GIB))) == chosen


def test_room_counts_whole_sets() -> None:
    five = [gpu(index) for index in range(5)]
    assert sets_free(five, 2, 10 * GIB) == 2
    assert sets_free([*five, gpu(5, replica_id="rp")], 2, 10 * GIB) == 2
    assert sets_free(five, 8, 10 * GIB) == 0


def test_room_for_replicas_on_gpus_waits_for_those_that_end() -> None:
    runtime = Runtime(
        engine=EngineName.ECHO,
        device="cuda",
        gpus=1,
        compute_type="none",
        runs_on="",
        context_length=None,
        memory_bytes=10 * GIB,
    )
    assert room_on_gpus(host(gpu(0), gpu(1)), runtime) == Room(2)
    assert room_on_gpus(host(gpu(0, replica_id="rp", ending=True)), runtime) == Room(0, settling=True)
    poor = replace(host(gpu(0), gpu(1)), available_bytes=HOST_SHARE)
    assert room_on_gpus(poor, runtime) == Room(0)


def engine(*indices: int, group: str = "g", versions: tuple[str, ...] = ("v-1",)) -> EngineOnGpus:
    return EngineOnGpus(group=group, uuids=tuple(f"GPU-{index}" for index in indices), versions=frozenset(versions))


def test_a_replica_joins_engines_of_its_group_that_have_none_of_its_version() -> None:
    pair, one = engine(1, 2), engine(0)
    gpus = [gpu(2, engine=pair), gpu(1, engine=pair), gpu(0, engine=one), gpu(3)]
    assert engines_to_join(gpus, "g", "v-2") == (one, pair)
    assert engines_to_join(gpus, "g", "v-1") == ()
    assert engines_to_join(gpus, "h", "v-2") == ()
    assert engines_to_join([gpu(0, engine=engine(0, group=""))], "", "v-2") == ()
    assert engines_to_join([replace(gpus[0], fault="lost"), *gpus[1:]], "g", "v-2") == (one,)


def test_room_is_for_those_that_join_and_for_those_that_find_gpus() -> None:
    runtime = Runtime(
        engine=EngineName.VLLM,
        device="cuda",
        gpus=1,
        compute_type="none",
        runs_on="",
        context_length=None,
        memory_bytes=10 * GIB,
    )
    here = host(gpu(0, replica_id="rp", engine=engine(0)), gpu(1))
    assert room_on_gpus(here, runtime, "g", "v-2") == Room(2)
    assert room_on_gpus(here, runtime, "g", "v-1") == Room(1)
    assert room_on_gpus(here, runtime) == Room(1)
    poor = replace(here, available_bytes=HOST_RESERVE + SEAT)
    assert room_on_gpus(poor, runtime, "g", "v-2") == Room(1)
    assert room_on_gpus(poor, runtime, "g", "v-1") == Room(0)


def test_on_a_cpu_those_that_join_an_engine_need_a_seat_alone() -> None:
    tight = replace(host(), available_bytes=HOST_RESERVE + 2 * SEAT)
    assert room_on_a_cpu(tight, 10 * GIB, 0) == Room(0)
    assert room_on_a_cpu(tight, 10 * GIB, 0, engines=1) == Room(1)
    assert room_on_a_cpu(tight, 10 * GIB, 0, engines=5) == Room(2)
    assert room_on_a_cpu(tight, 10 * GIB, 1, engines=5) == Room(0, settling=True)
    assert room_on_a_cpu(replace(tight, available_bytes=HOST_RESERVE + SEAT + GIB), GIB, 0, engines=1) == Room(2)


def test_gpus_stand_in_where_there_are_as_many_of_one_kind() -> None:
    one = host(gpu(0, 80, model="H100", capability=(9, 0)))
    placed = place(DEVICES["g5.xlarge"], one, strict=True)
    assert (placed.kind, placed.runs_on) == ("cuda", "1 × H100 (standing in for g5.xlarge)")
    assert placed.device.gpu_memory_mib == DEVICES["g5.xlarge"].gpu_memory_mib  # no more than the device has
    assert placed.device.capability == (9, 0)
    assert place(DEVICES["g5.12xlarge"], one, strict=False).runs_on == "cpu (standing in for g5.12xlarge)"
    with pytest.raises(Invalid, match=r"needs 4 GPU\(s\) and this host has 1;") as caught:
        place(DEVICES["g5.12xlarge"], one, strict=True)
    assert caught.value.reason is Reason.DEVICE_NOT_AVAILABLE
    mixed = host(gpu(0), gpu(1, model="L4"), gpu(2, fault="it is lost"))
    with pytest.raises(Invalid, match="this host has 2 of 2 kinds, GPU 2 is not used: it is lost"):
        place(DEVICES["g5.12xlarge"], mixed, strict=True)
    with pytest.raises(Invalid, match="this host has 0, the driver is broken"):
        place(DEVICES["g5.xlarge"], host(gpu_trouble="the driver is broken"), strict=True)


def test_a_smaller_gpu_stands_in_with_a_shorter_context_or_not_at_all() -> None:
    """A T4 has 15 GiB and its device is said to have 16."""
    device, engine, batch = DEVICES["g5.xlarge"], EngineName.CTRANSLATE2, 10
    published = fit_device(SMALL, engine, NONE, device, batch)
    roomy, fit = place_model(SMALL, engine, NONE, device, batch, host(gpu(0)), strict=True)
    assert (roomy.kind, fit.context_length) == ("cuda", published.context_length)
    tight, fit = place_model(SMALL, engine, NONE, device, batch, host(gpu(0, 5)), strict=True)
    assert tight.kind == "cuda"
    assert published.context_length is not None
    assert fit.context_length is not None
    assert fit.context_length < published.context_length
    placed, fit = place_model(LARGE, EngineName.VLLM, NONE, DEVICES["g6e.xlarge"], 1, host(gpu(0, 8)), strict=False)
    assert placed.kind == "cpu"
    with pytest.raises(Invalid, match=r"more than the 92% of 8\.00 GiB that A10G") as caught:
        place_model(LARGE, EngineName.VLLM, NONE, DEVICES["g6e.xlarge"], 1, host(gpu(0, 8)), strict=True)
    assert caught.value.reason is Reason.DEVICE_NOT_AVAILABLE


def test_what_does_not_use_all_gpus_gets_as_many_as_it_uses() -> None:
    four = host(*(gpu(index) for index in range(4)))
    placed, fit = place_model(SMALL, EngineName.CTRANSLATE2, NONE, DEVICES["g5.12xlarge"], 1, four, strict=True)
    assert (placed.gpus, fit.need.gpus, placed.runs_on) == (1, 1, "1 × A10G (standing in for g5.12xlarge)")


@pytest.mark.parametrize(
    ("stored", "architecture", "capability", "computed"),
    [
        ("bfloat16", "LlamaForCausalLM", (8, 6), "bfloat16"),
        ("float32", "LlamaForCausalLM", (8, 0), "bfloat16"),
        ("float16", "LlamaForCausalLM", (9, 0), "float16"),
        ("bfloat16", "LlamaForCausalLM", (7, 5), "float16"),
        ("float32", "T5ForConditionalGeneration", (7, 5), "float16"),
        ("bfloat16", "Gemma2ForCausalLM", (7, 5), "float32"),
        ("float16", "Gemma2ForCausalLM", (8, 6), "bfloat16"),
    ],
)
def test_half_precision_is_the_gpus_and_the_models(
    stored: str, architecture: str, capability: tuple[int, int], computed: str
) -> None:
    card = replace(SMALL, dtype=stored, architecture=architecture)
    assert half_precision(card, capability) == computed
    for engine in (EngineName.TRANSFORMERS, EngineName.VLLM):
        assert compute_type(engine, NONE, "cuda", card, capability) == computed
        assert compute_type(engine, NONE, "cpu", card, capability) == "float32"


def test_ctranslate2_computes_in_what_was_asked_for() -> None:
    assert compute_type(EngineName.CTRANSLATE2, NONE, "cuda", SMALL, (9, 0)) == "float16"
    assert compute_type(EngineName.CTRANSLATE2, Quantization.INT8_FLOAT16, "cuda", SMALL, (7, 5)) == "int8_float16"
