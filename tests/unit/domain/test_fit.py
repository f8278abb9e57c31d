"""Does it fit the device, with which context, on how many of its GPUs; and what a refusal says."""

from dataclasses import replace

import pytest
from tests.unit.domain.cards import FALCON, HUGE, LARGE, SMALL

from dockyard.domain.devices import DEVICES, GIB, Host
from dockyard.domain.fit import (
    CONTEXT_FLOOR,
    HOST_RESERVE,
    USABLE_SHARE,
    fit_device,
    gpus_used,
    host_need,
    replicas_that_fit,
)
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import Invalid, Reason

T, C, V = EngineName.TRANSFORMERS, EngineName.CTRANSLATE2, EngineName.VLLM
NONE, INT8 = Quantization.NONE, Quantization.INT8_FLOAT16
CPU_HOST = Host(cores=2, memory_bytes=24 * GIB, available_bytes=20 * GIB)


def test_a_small_model_fits_with_its_whole_context() -> None:
    fit = fit_device(SMALL, T, NONE, DEVICES["g5.xlarge"], 10)
    assert (fit.context_length, fit.warnings, fit.need.gpus) == (8192, (), 1)
    assert fit.need.cache_bytes == SMALL.kv_bytes_per_token * 8192 * 10


def test_a_long_context_is_shortened_to_what_the_device_holds_and_said_so() -> None:
    device = DEVICES["g6e.xlarge"]
    fit = fit_device(LARGE, T, NONE, device, 10)
    assert fit.context_length is not None
    assert CONTEXT_FLOOR <= fit.context_length < 131_072
    assert "131072" in fit.warnings[0]
    assert fit.need.total_bytes <= device.gpu_bytes * USABLE_SHARE


def test_what_does_not_fit_is_refused_with_need_size_and_the_smallest_device_that_fits() -> None:
    told = r"g4dn\.xlarge has 16\.00 GiB, 92% of it for a model; the smallest device that fits is g5\.xlarge"
    with pytest.raises(Invalid, match=told) as caught:
        fit_device(LARGE, T, NONE, DEVICES["g4dn.xlarge"], 4)
    assert caught.value.reason is Reason.DOES_NOT_FIT_DEVICE
    assert caught.value.field == "deviceType"


def test_a_refusal_names_what_would_run_instead() -> None:
    with pytest.raises(Invalid, match=r"or int8_float16 on ctranslate2 with g4dn\.xlarge.* or vllm with ") as caught:
        fit_device(LARGE, T, NONE, DEVICES["g4dn.xlarge"], 1)
    assert "no_quantization" not in caught.value.message


def test_what_fits_nowhere_says_so() -> None:
    with pytest.raises(Invalid, match="no device fits with transformers; lower scalingParameters"):
        fit_device(HUGE, T, NONE, DEVICES["g5.48xlarge"], 10)


def test_an_engine_of_one_gpu_has_one_gpu_of_a_large_device() -> None:
    """17 GB of float16 are more than one T4, and less than four: only who shares them out can have them."""
    with pytest.raises(Invalid, match=r"g4dn\.12xlarge has 4 × 16\.00 GiB, of which transformers uses 1") as caught:
        fit_device(LARGE, T, NONE, DEVICES["g4dn.12xlarge"], 1)
    assert "or vllm with g4dn.12xlarge" in caught.value.message
    fit = fit_device(LARGE, V, NONE, DEVICES["g4dn.12xlarge"], 1)
    assert fit.need.gpus == 4
    assert fit.need.bytes_each <= DEVICES["g4dn.12xlarge"].gpu_bytes * USABLE_SHARE


def test_gpus_that_are_not_used_are_told() -> None:
    fit = fit_device(SMALL, C, INT8, DEVICES["g5.12xlarge"], 1)
    assert fit.need.gpus == 1
    assert "ctranslate2 uses 1 of the 4 GPUs of g5.12xlarge" in fit.warnings[0]


def test_heads_are_shared_out_evenly() -> None:
    assert gpus_used(LARGE, V, 8) == 8
    assert gpus_used(SMALL, V, 4) == 3  # nine heads, three of keys and values
    assert gpus_used(FALCON, V, 4) == 1  # 71 heads
    assert FALCON.dimensions is not None
    even = replace(FALCON, dimensions=replace(FALCON.dimensions, heads=64, inner=16384))
    assert gpus_used(even, V, 8) == 8  # one head of keys and values on each
    assert gpus_used(LARGE, T, 8) == gpus_used(LARGE, C, 8) == 1
    assert gpus_used(replace(LARGE, dimensions=None), V, 8) == 1


def test_need_grows_with_precision_and_batch() -> None:
    def total(compute: str, batch: int) -> int:
        return host_need(SMALL, C, compute, batch).total_bytes

    assert total("int8_float32", 1) < total("float32", 1) < total("float32", 8)


def test_room_on_the_host_leaves_a_reserve() -> None:
    need = host_need(SMALL, C, "int8_float32", 10).total_bytes
    host = replace(CPU_HOST, available_bytes=2 * need + HOST_RESERVE)
    assert replicas_that_fit(host, need) == 2
    assert replicas_that_fit(replace(host, available_bytes=HOST_RESERVE // 2), need) == 0


@pytest.mark.parametrize("batch", [1, 2, 10])
@pytest.mark.parametrize("served", [100, 256, 8192])
def test_vllm_begins_with_room_for_a_whole_row_and_a_block(batch: int, served: int) -> None:
    """It hands 128 tokens out at a time, and keeps a block of them for itself."""
    need = host_need(replace(SMALL, context_length=8192), V, "float32", batch, served)
    token = 2 * SMALL.kv_bytes_per_token
    assert need.cache_bytes >= (-(-served // 128) + 1) * 128 * token
