"""What CUDA and the libraries on it say, as they say it, and what it means."""

import pytest

from dockyard.engines.failures import reason_of, translated
from dockyard.engines.gpu_failures import gpu_failure
from dockyard.errors import Reason

SAID = [
    ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.75 GiB", Reason.OUT_OF_MEMORY),
    ("CUDA failed with error out of memory", Reason.OUT_OF_MEMORY),
    ("CUDA error: out of memory", Reason.OUT_OF_MEMORY),
    ("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED", Reason.OUT_OF_MEMORY),
    (
        "Free memory on device cuda:0 (3.1/14.75 GiB) on startup is less than desired GPU memory utilization (0.9, "
        "13.27 GiB).",
        Reason.OUT_OF_MEMORY,
    ),
    ("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", Reason.OUT_OF_MEMORY),
    ("CUDA failed with error CUDA driver version is insufficient for CUDA runtime version", Reason.GPU_DRIVER_TOO_OLD),
    ("The NVIDIA driver on your system is too old (found version 11040).", Reason.GPU_DRIVER_TOO_OLD),
    ("Torch not compiled with CUDA enabled", Reason.ENGINE_CANNOT_USE_GPU),
    ("This CTranslate2 package was not compiled with CUDA support", Reason.ENGINE_CANNOT_USE_GPU),
    ("CUDA error: no kernel image is available for execution on the device", Reason.ENGINE_CANNOT_USE_GPU),
    (
        "Requested int8_float16 compute type, but the target device or backend do not support efficient int8_float16 "
        "computation.",
        Reason.ENGINE_FAILED,
    ),
    ("Library libcublas.so.12 is not found or cannot be loaded", Reason.ENGINE_CANNOT_USE_GPU),
    ("No CUDA GPUs are available", Reason.GPU_FAILED),
    ("CUDA error: an illegal memory access was encountered", Reason.GPU_FAILED),
    ("CUDA error: uncorrectable ECC error encountered", Reason.GPU_FAILED),
]


@pytest.mark.parametrize(("said", "reason"), SAID)
def test_the_reason_and_what_mends_it(said: str, reason: Reason) -> None:
    known = gpu_failure(said)
    assert known is not None
    assert known.reason is reason
    assert reason_of(RuntimeError(said)) is reason
    message = translated(RuntimeError(said), "loading the model").message
    assert message.startswith("loading the model failed: ")
    assert message.endswith(known.mend)


@pytest.mark.parametrize("said", ["std::bad_alloc", "Unable to open file 'model.bin'", "", "no layer 7"])
def test_what_is_not_about_gpus(said: str) -> None:
    assert gpu_failure(said) is None
