"""What the words of CUDA and of libraries on it mean: the reason, and what mends it. Pure; read of dead logs, too."""

from collections.abc import Sequence
from dataclasses import dataclass

from dockyard.errors import Reason


@dataclass(frozen=True, slots=True)
class GpuFailure:
    """`signs` in lower case, any of which is enough."""

    signs: Sequence[str]
    reason: Reason
    mend: str


# The order counts: "CUDA error: out of memory" is no defect.
_FAILURES = (
    GpuFailure(
        (
            "cuda out of memory",
            "cuda error: out of memory",
            "cuda failed with error out of memory",
            "cuda_error_out_of_memory",
            "cublas_status_alloc_failed",
            "hip out of memory",
            "is less than desired gpu memory utilization",
            "no available memory for the cache blocks",
        ),
        Reason.OUT_OF_MEMORY,
        "the GPU's memory ran out: deploy with int8_float16, a smaller maxBatchSize or on a larger device, or end what "
        "else uses that GPU",
    ),
    GpuFailure(
        (
            "driver version is insufficient",
            "nvidia driver on your system is too old",
            "forward compatibility was attempted",
        ),
        Reason.GPU_DRIVER_TOO_OLD,
        "update the host's GPU driver, or install a build of the engine for an older CUDA",
    ),
    GpuFailure(
        ("torch not compiled with cuda", "not compiled with cuda support", "without cuda support"),
        Reason.ENGINE_CANNOT_USE_GPU,
        "the engine's build is for CPUs: install its build for CUDA, or start the server with DOCKYARD_DEVICES=cpu",
    ),
    GpuFailure(
        (
            "no kernel image is available",
            "not compatible with the current pytorch installation",
            "unsupported gpu architecture",
        ),
        Reason.ENGINE_CANNOT_USE_GPU,
        "the engine's build has no code for this generation of GPUs: install another version of it",
    ),
    GpuFailure(
        ("efficient int8_float16 computation", "efficient float16 computation", "efficient bfloat16 computation"),
        Reason.ENGINE_FAILED,  # a CPU says the same
        "the device has no such precision: deploy with another quantization, or on a newer GPU",
    ),
    GpuFailure(
        ("library libcu", "libcublas.so", "libcudart.so", "libcudnn"),
        Reason.ENGINE_CANNOT_USE_GPU,
        "a library of CUDA is missing: pip install nvidia-cublas-cu12 into the server's environment",
    ),
    GpuFailure(
        (
            "no cuda gpus are available",
            "no cuda-capable device is detected",
            "invalid device ordinal",
            "cuda_error_no_device",
        ),
        Reason.GPU_FAILED,
        "the GPU that the replica was given is not there any more: see `dockyard devices` and `nvidia-smi`",
    ),
    GpuFailure(
        (
            "unspecified launch failure",
            "uncorrectable ecc error",
            "gpu is lost",
            "fallen off the bus",
            "an illegal memory access",
            "device-side assert",
            "cuda error: unknown error",
            "cublas_status_not_initialized",
            "cublas_status_execution_failed",
            "nccl error",
        ),
        Reason.GPU_FAILED,
        "see the kernel's log (`dmesg | grep -i xid`) and `nvidia-smi`; if it comes again, GPU or driver are broken",
    ),
)


def gpu_failure(text: str) -> GpuFailure | None:
    """What `text`, an exception's message or a line of a log, says about a GPU."""
    lower = text.lower()
    return next((known for known in _FAILURES if any(sign in lower for sign in known.signs)), None)
