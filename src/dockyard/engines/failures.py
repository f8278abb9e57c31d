"""What an engine library's exceptions mean: the one place where their messages are read."""

from dockyard.engines.gpu_failures import gpu_failure
from dockyard.errors import DockyardError, Failed, Reason

# Spellings of C++ and of PyTorch's CPU allocator; CUDA's are in `gpu_failures`.
_OUT_OF_MEMORY = ("bad_alloc", "out of memory", "can't allocate memory", "cannot allocate memory")
# CTranslate2's reader and safetensors'.
_CORRUPT = (
    "file model.bin is incomplete",
    "invalid payload size",
    "model binary version",
    "unable to open file",
    "error while deserializing",
    "headertoo",
    "invalidheader",
    "metadataincomplete",
    "no such file or directory",
    "no file named model.safetensors",
)


def translated(error: BaseException, doing: str) -> DockyardError:
    """`error` as one of ours, with the reason that its type or message tells; ENGINE_FAILED otherwise."""
    if isinstance(error, DockyardError):
        return error
    on_gpu = gpu_failure(str(error))
    mend = f"; {on_gpu.mend}" if on_gpu else ""
    return Failed(f"{doing} failed: {_sentence(error)}{mend}", reason=reason_of(error))


def reason_of(error: BaseException) -> Reason:
    on_gpu = gpu_failure(str(error))
    if on_gpu is not None:
        return on_gpu.reason
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY):
        return Reason.OUT_OF_MEMORY
    if isinstance(error, ImportError):
        return Reason.ENGINE_NOT_INSTALLED
    if "safetensor" in type(error).__name__.lower() or any(sign in text for sign in _CORRUPT):
        return Reason.ARTIFACT_CORRUPT
    return Reason.ENGINE_FAILED


def _sentence(error: BaseException) -> str:
    """The exception's first line, or its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
