"""Which engine, which precision, does it fit, does the host stand in."""

from dataclasses import replace

import pytest

from dockyard.domain.card import Family, ModelCard
from dockyard.domain.compatibility import (
    ARCHITECTURES,
    COMPUTE_TYPES,
    QUANTIZATIONS,
    check_quantization,
    resolve_engine,
)
from dockyard.domain.deployment import version_name
from dockyard.domain.devices import DEVICES, GIB, Host, place
from dockyard.domain.fit import CONTEXT_FLOOR, HOST_RESERVE, fit_device, host_need, memory_need, replicas_that_fit
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import Invalid, Reason

SMALL = ModelCard(
    architecture="LlamaForCausalLM",
    model_type="llama",
    family=Family.DECODER,
    parameters=134_515_008,
    weights_bytes=269_030_016,
    dtype="float16",
    context_length=8192,
    vocab_size=49152,
    layers=30,
    kv_bytes_per_token=2 * 2 * 30 * 3 * 64,
)
# Llama 3.1 8B: 32 layers, 8 key-value heads of 128, 131072 tokens of context.
LARGE = replace(
    SMALL, parameters=8_030_000_000, context_length=131_072, layers=32, kv_bytes_per_token=2 * 2 * 32 * 8 * 128
)
HUGE = replace(LARGE, parameters=700_000_000_000)
CPU_HOST = Host(cores=2, memory_bytes=24 * GIB, available_bytes=20 * GIB)


def test_no_optimization_means_transformers_and_a_refusal_names_what_can() -> None:
    assert resolve_engine("LlamaForCausalLM", None) is EngineName.TRANSFORMERS
    assert resolve_engine("EchoForCausalLM", None) is EngineName.ECHO
    with pytest.raises(Invalid, match="'', 'ctranslate2'") as caught:
        resolve_engine("T5ForConditionalGeneration", EngineName.VLLM)
    assert caught.value.reason is Reason.ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE
    with pytest.raises(Invalid):
        resolve_engine("BertForMaskedLM", None)


def test_int8_float16_needs_ctranslate2() -> None:
    check_quantization(EngineName.CTRANSLATE2, Quantization.INT8_FLOAT16)
    with pytest.raises(Invalid, match="ctranslate2") as caught:
        check_quantization(EngineName.TRANSFORMERS, Quantization.INT8_FLOAT16)
    assert caught.value.reason is Reason.QUANTIZATION_NOT_SUPPORTED


def test_every_engine_and_quantization_has_a_compute_type_on_both_kinds_of_device() -> None:
    for engine, quantizations in QUANTIZATIONS.items():
        for quantization in quantizations:
            assert {(engine, quantization, kind) for kind in ("cpu", "cuda")} <= set(COMPUTE_TYPES)
    assert all(architecture.engines for architecture in ARCHITECTURES.values())


def test_a_small_model_fits_with_its_whole_context() -> None:
    fit = fit_device(SMALL, EngineName.CTRANSLATE2, Quantization.INT8_FLOAT16, DEVICES["g5.xlarge"], 10)
    assert fit.context_length == 8192
    assert fit.warnings == ()
    assert fit.need.total_bytes == fit.need.weights_bytes + fit.need.cache_bytes + fit.need.overhead_bytes
    assert fit.need.cache_bytes == SMALL.kv_bytes_per_token * 8192 * 10


def test_a_long_context_is_shortened_to_what_the_device_holds_and_said_so() -> None:
    fit = fit_device(LARGE, EngineName.TRANSFORMERS, Quantization.NONE, DEVICES["g5.xlarge"], 10)
    assert fit.context_length is not None
    assert CONTEXT_FLOOR <= fit.context_length < 131_072
    assert "131072" in fit.warnings[0]
    assert fit.need.total_bytes <= DEVICES["g5.xlarge"].total_gpu_bytes


def test_what_does_not_fit_is_refused_with_need_size_and_the_smallest_device_that_fits() -> None:
    with pytest.raises(
        Invalid, match=r"g4dn\.xlarge has 16\.00 GiB; the smallest device that fits is g5\.xlarge"
    ) as caught:
        fit_device(LARGE, EngineName.TRANSFORMERS, Quantization.NONE, DEVICES["g4dn.xlarge"], 10)
    assert caught.value.reason is Reason.DOES_NOT_FIT_DEVICE
    assert caught.value.field == "deviceType"
    with pytest.raises(Invalid, match="no device fits"):
        fit_device(HUGE, EngineName.TRANSFORMERS, Quantization.NONE, DEVICES["g5.48xlarge"], 10)


def test_need_grows_with_precision_and_batch() -> None:
    def total(compute: str, batch: int) -> int:
        return memory_need(SMALL, EngineName.CTRANSLATE2, compute, "cpu", batch, 1024).total_bytes

    assert total("int8_float32", 1) < total("float32", 1) < total("float32", 8)


def test_room_on_the_host_leaves_a_reserve() -> None:
    need = host_need(SMALL, EngineName.CTRANSLATE2, "int8_float32", 10).total_bytes
    host = replace(CPU_HOST, available_bytes=2 * need + HOST_RESERVE)
    assert replicas_that_fit(host, need) == 2
    assert replicas_that_fit(replace(host, available_bytes=HOST_RESERVE // 2), need) == 0


def test_the_host_stands_in_for_the_device_unless_strict() -> None:
    placed = place(DEVICES["g5.xlarge"], CPU_HOST, strict=False)
    assert (placed.kind, placed.runs_on) == ("cpu", "cpu (standing in for g5.xlarge)")
    with pytest.raises(Invalid) as caught:
        place(DEVICES["g5.xlarge"], CPU_HOST, strict=True)
    assert caught.value.reason is Reason.DEVICE_NOT_AVAILABLE
    four = replace(CPU_HOST, gpus=(16 * GIB,) * 4)
    assert place(DEVICES["g5.12xlarge"], four, strict=True).kind == "cuda"


def test_version_names_follow_the_published_rule() -> None:
    assert [version_name("Flan T5", n) for n in (1, 2, 3)] == ["Flan T5", "Flan T5_v1", "Flan T5_v2"]
