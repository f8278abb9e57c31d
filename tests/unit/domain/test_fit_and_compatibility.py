"""Which engine, which precision, does the host stand in."""

import pytest

from dockyard.domain.compatibility import (
    ARCHITECTURES,
    COMPUTE_TYPES,
    QUANTIZATIONS,
    check_quantization,
    resolve_engine,
)
from dockyard.domain.deployment import version_name
from dockyard.domain.devices import DEVICES, GIB, Host, place
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import Invalid, Reason

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


def test_the_host_stands_in_for_the_device_unless_strict() -> None:
    placed = place(DEVICES["g5.xlarge"], CPU_HOST, strict=False)
    assert (placed.kind, placed.runs_on) == ("cpu", "cpu (standing in for g5.xlarge)")
    with pytest.raises(Invalid) as caught:
        place(DEVICES["g5.xlarge"], CPU_HOST, strict=True)
    assert caught.value.reason is Reason.DEVICE_NOT_AVAILABLE


def test_version_names_follow_the_published_rule() -> None:
    assert [version_name("Flan T5", n) for n in (1, 2, 3)] == ["Flan T5", "Flan T5_v1", "Flan T5_v2"]
