"""What a deploy asks for, and the bounds of every number in it. The wire spelling lives in `api`."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Bounds(NamedTuple):
    low: int
    high: int


# The published ranges ("Deploy a Model", body parameters).
TEMPERATURE = Bounds(0, 2)
MAX_TOKENS = Bounds(0, 512)
TOP_P = Bounds(0, 1)
TOP_K = Bounds(1, 100)
STOP_SEQUENCES = Bounds(0, 16)  # how many
STOP_SEQUENCE_LENGTH = Bounds(1, 256)  # characters each
MAX_BATCH_SIZE = Bounds(1, 256)
MIN_REPLICAS = Bounds(1, 10)
MAX_REPLICAS = Bounds(1, 50)
SCALE_UP_DELAY = Bounds(1, 1000)
SCALE_DOWN_DELAY = Bounds(50, 2000)
NAME_LENGTH = Bounds(1, 64)  # characters
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"
ENDPOINT_TIMEOUT_S = Bounds(30, 180)

DEFAULT_MAX_BATCH_SIZE = 10
DEFAULT_MIN_REPLICAS = 1
DEFAULT_MAX_REPLICAS = 2
DEFAULT_SCALE_UP_DELAY = 30
DEFAULT_SCALE_DOWN_DELAY = 600
DEFAULT_ENDPOINT_TIMEOUT_S = 60


class ModelType(StrEnum):
    OPEN_SOURCE = "openSource"
    FINE_TUNE = "fineTune"


class EngineName(StrEnum):
    """Who runs the model. `transformers` is what the pages call no optimization; `echo` answers with its prompt."""

    TRANSFORMERS = "transformers"
    CTRANSLATE2 = "ctranslate2"
    VLLM = "vllm"
    ECHO = "echo"


class Quantization(StrEnum):
    NONE = "no_quantization"
    INT8_FLOAT16 = "int8_float16"


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperParameters:
    """Sampling defaults of a deployment; `max_tokens` is the ceiling of every request, too."""

    temperature: float
    max_tokens: int
    top_p: float
    top_k: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Batch and replica bounds. The delays are milliseconds, already resolved from the server's unit."""

    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    min_replicas: int = DEFAULT_MIN_REPLICAS
    max_replicas: int = DEFAULT_MAX_REPLICAS
    scale_up_delay_ms: int = DEFAULT_SCALE_UP_DELAY
    scale_down_delay_ms: int = DEFAULT_SCALE_DOWN_DELAY


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploySpec:
    """One version's wish, as the client gave it and with defaults filled in.

    `engine` is None for "no optimization": `compatibility.resolve_engine` turns it into the engine that runs.
    """

    hyper: HyperParameters
    device_type: str
    scaling: Scaling = field(default_factory=Scaling)
    optimization: EngineName | None = None
    quantization: Quantization = Quantization.NONE
