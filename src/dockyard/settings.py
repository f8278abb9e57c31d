"""The settings of the server: `DOCKYARD_*` variables or flags of `dockyard serve`. Only this reads the environment."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dockyard.domain.access import KEY_FORM


def default_data_dir() -> Path:
    """Where the server keeps all it has, unless told otherwise: `$XDG_DATA_HOME/dockyard`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "dockyard"


class Settings(BaseSettings):
    """One field, one variable: `data_dir` is `DOCKYARD_DATA_DIR`. What is given in code (a flag) wins."""

    model_config = SettingsConfigDict(env_prefix="DOCKYARD_", extra="ignore")

    host: str = Field(
        "127.0.0.1", description="Address to listen on. Past loopback, imports by path need import roots."
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Database, models, artifacts, logs, sockets. One server each."
    )
    database_url: str | None = Field(
        None,
        description="PostgreSQL (`postgresql://user:password@host/name`) in place of SQLite in the data directory.",
    )
    admin_key: str | None = Field(
        None, description="The management key with every scope, in place of the one that the first start makes."
    )
    devices: Literal["stand-in", "strict", "cpu"] = Field(
        "stand-in",
        description="`strict` refuses a deviceType whose GPUs the host lacks; else its CPU stands in. `cpu`: always.",
    )
    scale_delay_unit: Literal["ms", "s"] = Field(
        "ms", description="How `scaleUpDelay` and `scaleDownDelay` are read. The published pages say milliseconds."
    )
    public_url: str | None = Field(
        None,
        description="How clients reach the server, for the URLs it replies with. Default: its own host and port.",
    )
    import_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Folders that models may be imported from, separated by `:`. Empty: any, while on loopback."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Threads of each replica on a CPU. Default: the cores by maxReplicas, fewer if more do not help.",
    )
    vllm_python: Path | None = Field(
        None, description="The Python whose environment has vLLM. Default: the one of `dockyard engines install vllm`."
    )
    warm_spares: bool = Field(
        True,
        description="Keep one process per engine in use that has done its imports, so that replicas start at once.",
    )
    start_timeout_s: float = Field(
        1800.0,
        gt=0,
        description="How long a starting replica may come no step further before it is killed, in seconds.",
    )
    queue_limit: int = Field(
        1000,
        ge=0,
        description="Requests that may wait per deployment; beyond it, past a key's share, 429 with `Retry-After`.",
    )
    upload_ttl_s: float = Field(
        86_400.0,
        ge=1,
        description="How long an upload may wait for its next chunk before it is removed, in seconds.",
    )
    drain_timeout_s: float = Field(
        30.0, ge=0, description="On SIGTERM, how long running requests may take to finish, in seconds."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Log lines on standard error: `auto` is text on a terminal, JSON in a pipe."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")

    @field_validator("import_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("admin_key")
    @classmethod
    def _check_key(cls, value: str | None) -> str | None:
        if value is not None and not KEY_FORM.match(value):
            raise ValueError("must have the form kg-<uuid>-<uuid> in lower case, for example from `uuidgen`")
        return value

    @property
    def on_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def store_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'dockyard.db'}"
