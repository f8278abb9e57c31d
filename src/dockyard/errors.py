"""The one error tree and the stable reasons a client may act on. HTTP is not known here.

DockyardError
├── Invalid            a value of the request is wrong (may carry several problems)
├── Unauthenticated    no key, or an unknown one
├── Forbidden          the key lacks the scope
├── NotFound           no such thing
├── Conflict           at odds with the present state
│   └── Stale          somebody else wrote first; load again and decide anew
├── TooMany            over a limit; try again after `retry_after_s`
├── Unavailable        not now; try again after `retry_after_s`
├── TimedOut           took longer than it was allowed to
└── Failed             work that ran and failed: an import, a conversion, a replica
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Stable names for what went wrong. The docstring below each is what the reference prints."""

    doc: str

    def __new__(cls, value: str, doc: str) -> "Reason":
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member

    # A request that cannot be read, or a value that is wrong
    MISSING_FIELD = "MISSING_FIELD", "A required field or parameter is absent."
    WRONG_TYPE = "WRONG_TYPE", "The value has another JSON type than the field; types are strict."
    OUT_OF_RANGE = "OUT_OF_RANGE", "The value is outside the field's bounds."
    NOT_IN_ENUM = "NOT_IN_ENUM", "The value is not one of the field's choices."
    BAD_FORMAT = "BAD_FORMAT", "The value has the right type and the wrong form."
    UNREADABLE_JSON = "UNREADABLE_JSON", "The body is no JSON, or not UTF-8."
    BODY_TOO_LARGE = "BODY_TOO_LARGE", "The body is larger than the route accepts."
    BODY_TOO_SLOW = "BODY_TOO_SLOW", "The body did not come within the time that the route gives it."
    UNSUPPORTED_CONTENT_TYPE = "UNSUPPORTED_CONTENT_TYPE", "The route reads another content type."
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED", "The route exists, not with this method."
    NOT_FOUND = "NOT_FOUND", "There is no such route or thing."

    # Keys
    NO_KEY = "NO_KEY", "The request carries no key."
    UNKNOWN_KEY = "UNKNOWN_KEY", "The key is unknown or was revoked."
    MISSING_SCOPE = "MISSING_SCOPE", "The key's app lacks the scope that the route needs."

    # Deploy, checked before anything starts
    MODEL_TYPE_MISMATCH = "MODEL_TYPE_MISMATCH", "`modelType` is not the type the model was imported with."
    ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE = (
        "ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE",
        "The engine cannot run the model's architecture; the message names one that can.",
    )
    ENGINE_NOT_INSTALLED = (
        "ENGINE_NOT_INSTALLED",
        "The engine's Python packages are not installed on the server.",
    )
    ENGINE_CANNOT_USE_GPU = (
        "ENGINE_CANNOT_USE_GPU",
        "The engine's build is for CPUs, lacks a library of CUDA, or has no code for this GPU: see the message.",
    )
    QUANTIZATION_NOT_SUPPORTED = "QUANTIZATION_NOT_SUPPORTED", "The engine does not know the quantization."
    DOES_NOT_FIT_DEVICE = "DOES_NOT_FIT_DEVICE", "Weights and cache need more memory than the device has."
    DEVICE_NOT_AVAILABLE = (
        "DEVICE_NOT_AVAILABLE",
        "`DOCKYARD_DEVICES=strict` and the host lacks the device's GPUs.",
    )
    MODEL_NOT_READY = "MODEL_NOT_READY", "The model is not in the state *Ready to Deploy*."
    NAME_TAKEN = "NAME_TAKEN", "A deployment of that name belongs to another model."
    JOB_IN_PROGRESS = "JOB_IN_PROGRESS", "A deploy or undeploy of it is still in progress."
    NOT_DEPLOYED = "NOT_DEPLOYED", "There is no live deployment to act on."
    VERSION_SERVES = "VERSION_SERVES", "The version to roll back to is the one that serves."
    VERSION_NEVER_SERVED = "VERSION_NEVER_SERVED", "The version to roll back to had failed before it could serve."
    STILL_DEPLOYED = "STILL_DEPLOYED", "The model has live deployments; undeploy them first."
    JOB_ENDED = "JOB_ENDED", "The job has ended; there is nothing to cancel."

    # Import
    PATH_NOT_FOUND = "PATH_NOT_FOUND", "The server finds nothing at the path."
    PATH_NOT_ALLOWED = (
        "PATH_NOT_ALLOWED",
        "The path is outside `DOCKYARD_IMPORT_ROOTS`, or a link leads out of the folder.",
    )
    SOURCE_NOT_SUPPORTED = "SOURCE_NOT_SUPPORTED", "The source is neither a model folder nor a GGUF file."
    CONFIG_MISSING = "CONFIG_MISSING", "The folder has no `config.json`; name the model's own folder."
    CONFIG_UNREADABLE = (
        "CONFIG_UNREADABLE",
        "`config.json` is no JSON object, too large, or lacks what a model needs.",
    )
    TOKENIZER_MISSING = "TOKENIZER_MISSING", "No `tokenizer.json`, nor files to make it of."
    TOKENIZER_UNREADABLE = "TOKENIZER_UNREADABLE", "The tokenizer's files cannot be read."
    WEIGHTS_MISSING = (
        "WEIGHTS_MISSING",
        "The folder has no safetensors weights, or the index names an absent file.",
    )
    WEIGHTS_UNREADABLE = "WEIGHTS_UNREADABLE", "A safetensors or GGUF file is damaged."
    PICKLE_REFUSED = (
        "PICKLE_REFUSED",
        "Pickled weights can run code when loaded; convert them to safetensors.",
    )
    CODE_REFUSED = "CODE_REFUSED", "The folder holds Python files; Dockyard never runs a model's code."
    AUTO_MAP_REFUSED = "AUTO_MAP_REFUSED", "`auto_map` asks for the model's own code; Dockyard never runs it."
    CHAT_TEMPLATE_REFUSED = (
        "CHAT_TEMPLATE_REFUSED",
        "The chat template is no Jinja, reaches for Python, or takes time or memory without bound.",
    )
    ENCODER_ONLY = "ENCODER_ONLY", "The architecture produces no text (an encoder, or a classification head)."
    ARCHITECTURE_UNKNOWN = "ARCHITECTURE_UNKNOWN", "No engine knows the architecture."
    GGUF_ARCHITECTURE_NOT_SUPPORTED = (
        "GGUF_ARCHITECTURE_NOT_SUPPORTED",
        "The GGUF file's architecture has no mapping to safetensors here.",
    )

    # Import from a hub
    HUB_REPOSITORY_NOT_FOUND = (
        "HUB_REPOSITORY_NOT_FOUND",
        "The hub has no such repository, or hides it from the server's token.",
    )
    HUB_REVISION_NOT_FOUND = "HUB_REVISION_NOT_FOUND", "The repository has no such branch, tag or commit."
    HUB_FILE_NOT_FOUND = "HUB_FILE_NOT_FOUND", "The repository has no such file at that revision."
    HUB_REPOSITORY_GATED = (
        "HUB_REPOSITORY_GATED",
        "Its owner asks for an agreement: accept it on the repository's page, and give the server your token.",
    )
    HUB_ACCESS_REFUSED = "HUB_ACCESS_REFUSED", "The hub refused the server's token, or asked for one."
    HUB_RATE_LIMITED = "HUB_RATE_LIMITED", "The hub asked to come back later than an import waits."
    HUB_UNREACHABLE = "HUB_UNREACHABLE", "Nothing answers at the hub's address, or not in time."
    HUB_FAILED = "HUB_FAILED", "The hub answered with a fault of its own, or not as a hub does."
    DOWNLOAD_BROKEN = "DOWNLOAD_BROKEN", "The connection to the hub broke again and again."
    DOWNLOAD_CORRUPT = "DOWNLOAD_CORRUPT", "What came from the hub differs from the size or digest that it tells."

    BASE_MODEL_MISSING = (
        "BASE_MODEL_MISSING",
        "An adapter was imported and no base model was named, or the named one is gone.",
    )
    BASE_MODEL_NOT_USABLE = (
        "BASE_MODEL_NOT_USABLE",
        "The model named as base is not *Ready to Deploy*, is an adapter itself, or has no weights.",
    )
    BASE_MODEL_IN_USE = "BASE_MODEL_IN_USE", "Adapters in the registry need the model as their base."
    ADAPTER_UNREADABLE = "ADAPTER_UNREADABLE", "`adapter_config.json` or the adapter's weights cannot be read."
    ADAPTER_NOT_SUPPORTED = (
        "ADAPTER_NOT_SUPPORTED",
        "The adapter is of a kind that is not merged here; merge it with PEFT and import the whole model.",
    )
    ADAPTER_MISMATCH = (
        "ADAPTER_MISMATCH",
        "`isAdapter` is true and the archive holds a whole model, or false and it holds an adapter.",
    )
    ADAPTER_DOES_NOT_FIT = (
        "ADAPTER_DOES_NOT_FIT",
        "The adapter names modules that the base model has not, or has in other shapes.",
    )

    # Import in chunks, and the archives that come so
    CHUNKS_MISSING = "CHUNKS_MISSING", "The upload lacks chunks; the message names them."
    SIZE_MISMATCH = "SIZE_MISMATCH", "The chunks are together more or fewer bytes than `fileSize`."
    DIGEST_MISMATCH = "DIGEST_MISMATCH", "What arrived differs from the SHA-256 that the client named."
    TOO_MANY_UPLOADS = "TOO_MANY_UPLOADS", "The server keeps as many open uploads as it may; complete or remove one."
    UPLOAD_COMPLETED = "UPLOAD_COMPLETED", "The upload was completed and takes no more chunks."
    ARCHIVE_KIND_MISMATCH = (
        "ARCHIVE_KIND_MISMATCH",
        "The archive is not of the kind that `fileExtension` says, or of two kinds at once.",
    )
    ARCHIVE_UNREADABLE = "ARCHIVE_UNREADABLE", "The archive is damaged or cut short."
    ARCHIVE_FORM_NOT_SUPPORTED = (
        "ARCHIVE_FORM_NOT_SUPPORTED",
        "The archive uses a form that is not read: sparse files, or a compression other than deflate.",
    )
    ARCHIVE_ENCRYPTED = "ARCHIVE_ENCRYPTED", "The archive needs a password."
    ARCHIVE_PATH_REFUSED = (
        "ARCHIVE_PATH_REFUSED",
        "A path in the archive is absolute, leads out of it, or has characters that no file name should have.",
    )
    ARCHIVE_LINK_REFUSED = "ARCHIVE_LINK_REFUSED", "The archive holds a link."
    ARCHIVE_DEVICE_REFUSED = "ARCHIVE_DEVICE_REFUSED", "The archive holds a device, a pipe or a socket."
    ARCHIVE_DUPLICATE_NAME = "ARCHIVE_DUPLICATE_NAME", "Two files of the archive have the same name."
    ARCHIVE_TOO_MANY_FILES = "ARCHIVE_TOO_MANY_FILES", "The archive has more entries than any model's."
    ARCHIVE_TOO_LARGE = (
        "ARCHIVE_TOO_LARGE",
        "The archive would unpack to far more than it is itself, or a file in it is larger than its kind ever is.",
    )
    ARCHIVE_LAYOUT = "ARCHIVE_LAYOUT", "The archive holds no model, or several folders of which none is the one."

    # Export
    LINK_EXPIRED = "LINK_EXPIRED", "The download link was valid until an instant that is past."
    BAD_SIGNATURE = "BAD_SIGNATURE", "The download link was changed, or another server signed it."
    RANGE_NOT_SATISFIABLE = "RANGE_NOT_SATISFIABLE", "The range begins where the file has ended."

    # The database
    ALREADY_EXISTS = "ALREADY_EXISTS", "There is one with that id or name already."
    STILL_REFERENCED = "STILL_REFERENCED", "Something else refers to it, or what it refers to is not there."
    CHANGED_MEANWHILE = "CHANGED_MEANWHILE", "Somebody else changed it at the same moment; try again."
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE", "The database cannot be reached or is busy; try again."

    # Jobs and replicas
    OUT_OF_MEMORY = "OUT_OF_MEMORY", "The process ran out of memory."
    ENGINE_CRASHED = "ENGINE_CRASHED", "The replica's process ended while it loaded, warmed up or served."
    ENGINE_FAILED = "ENGINE_FAILED", "The engine refused to load the model; the message is the engine's."
    CONVERSION_FAILED = "CONVERSION_FAILED", "The converter refused the model or ended early."
    ARTIFACT_CORRUPT = "ARTIFACT_CORRUPT", "Stored files differ from their digests."
    NO_CAPACITY = "NO_CAPACITY", "The host has too little free memory, or too few free GPUs, for the replicas."
    GPU_DRIVER_TOO_OLD = "GPU_DRIVER_TOO_OLD", "The engine's CUDA needs a newer driver than the host has."
    GPU_FAILED = "GPU_FAILED", "A GPU or its driver failed while a replica used it."
    DISK_FULL = "DISK_FULL", "The data directory's disk is full."
    TIMED_OUT = "TIMED_OUT", "It took longer than it is allowed to."
    CANCELLED = "CANCELLED", "Somebody cancelled it."
    SUPERSEDED = "SUPERSEDED", "A newer wish replaced it."
    INTERNAL = "INTERNAL", "A fault of Dockyard's own; the request id finds it in the log."

    # The server itself
    NOT_READY = "NOT_READY", "The server is starting or shutting down."

    # Inference
    MODEL_NOT_SERVED = "MODEL_NOT_SERVED", "No live deployment has that name or id."
    QUEUE_FULL = "QUEUE_FULL", "The deployment's queue is full."
    NO_REPLICA = "NO_REPLICA", "No replica serves and none is on its way."
    CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED", "Prompt and `max_tokens` exceed the served context."
    ENGINE_CANNOT = "ENGINE_CANNOT", "The deployment's engine cannot do what the request asks."
    SCHEMA_NOT_SUPPORTED = (
        "SCHEMA_NOT_SUPPORTED",
        "The JSON schema is wrong, too large or too costly, or asks for what constrained decoding cannot do.",
    )
    NO_CHAT_TEMPLATE = "NO_CHAT_TEMPLATE", "The model has no chat template; use the completions route."
    TEMPLATE_WITHOUT_TOOLS = "TEMPLATE_WITHOUT_TOOLS", "The model's chat template has no place for tools."
    TOOL_FORMAT_UNKNOWN = "TOOL_FORMAT_UNKNOWN", "The model's chat template writes calls of tools in an unknown form."
    DRAINING = "DRAINING", "The replica or the server is shutting down."


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request: a sentence, its reason, and the path of the field in wire spelling."""

    msg: str
    reason: Reason
    field: str | None = None


class DockyardError(Exception):
    """Something went wrong."""

    kind: str = "internal"
    default_reason: Reason = Reason.INTERNAL

    def __init__(
        self,
        message: str | None = None,
        *,
        reason: Reason | None = None,
        field: str | None = None,
        problems: tuple[Problem, ...] = (),
        retry_after_s: float | None = None,
        log_tail: tuple[str, ...] = (),
    ) -> None:
        self.reason = reason or (problems[0].reason if problems else self.default_reason)
        self.message = message or (problems[0].msg if problems else (self.__doc__ or "").strip())
        self.field = field
        self.problems = problems or (Problem(self.message, self.reason, field),)
        self.retry_after_s = retry_after_s
        self.log_tail = log_tail
        super().__init__(self.message)


class Invalid(DockyardError):
    """A value of the request is wrong."""

    kind = "invalid"
    default_reason = Reason.BAD_FORMAT


class Unauthenticated(DockyardError):
    """A key is needed: send it as the header x-api-key."""

    kind = "unauthenticated"
    default_reason = Reason.NO_KEY


class Forbidden(DockyardError):
    """The key does not allow this."""

    kind = "forbidden"
    default_reason = Reason.MISSING_SCOPE


class NotFound(DockyardError):
    """There is no such thing."""

    kind = "not_found"
    default_reason = Reason.NOT_FOUND


class Conflict(DockyardError):
    """This is at odds with the present state."""

    kind = "conflict"
    default_reason = Reason.JOB_IN_PROGRESS


class Stale(Conflict):
    """The row changed since it was read; load it again."""


class TooMany(DockyardError):
    """Too many requests; try again later."""

    kind = "too_many"
    default_reason = Reason.QUEUE_FULL


class Unavailable(DockyardError):
    """Not now; try again later."""

    kind = "unavailable"
    default_reason = Reason.NO_REPLICA


class TimedOut(DockyardError):
    """It took longer than it is allowed to."""

    kind = "timed_out"
    default_reason = Reason.TIMED_OUT


class Failed(DockyardError):
    """The work failed."""

    kind = "failed"
    default_reason = Reason.INTERNAL
