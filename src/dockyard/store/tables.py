"""The tables. A column has the name of the entity's field that it holds; `rows.py` relies on it."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dockyard.domain.access import Scope
from dockyard.domain.card import ModelCard
from dockyard.domain.deployment import Runtime
from dockyard.domain.job import Action, Phase, PhaseLog
from dockyard.domain.lifecycle import JobStatus, ModelState, ReplicaState, VersionState
from dockyard.domain.replica import ReplicaFailure
from dockyard.domain.spec import DeploySpec, ModelType
from dockyard.domain.upload import FileExtension
from dockyard.errors import Reason
from dockyard.store.columns import Choice, Instant, Nested, Prose

CHOICES = (Action, FileExtension, JobStatus, ModelState, ModelType, Phase, Reason, ReplicaState, VersionState)
NESTED = (
    DeploySpec,
    ModelCard,
    ReplicaFailure,
    Runtime,
    dict[str, Any],
    dict[str, str],
    tuple[PhaseLog, ...],
    tuple[Scope, ...],
    tuple[str, ...],
)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Prose(),
        int: BigInteger(),
        float: Double(),
        datetime: Instant(),
        **{choice: Choice(choice) for choice in CHOICES},
        **{kind: Nested(kind) for kind in NESTED},
    }


class ArtifactRow(Base):
    __tablename__ = "artifact"

    key: Mapped[str] = mapped_column(primary_key=True)
    source_key: Mapped[str | None] = mapped_column(index=True)
    engine: Mapped[str | None]
    quantization: Mapped[str | None]
    size_bytes: Mapped[int]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime]


class ModelRow(Base):
    __tablename__ = "model"

    model_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    model_type: Mapped[ModelType]
    source: Mapped[dict[str, str]]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    state: Mapped[ModelState]
    base_model_id: Mapped[str | None]
    # Checked at commit, so that the model and its artifact may be written in either order.
    artifact_key: Mapped[str | None] = mapped_column(
        ForeignKey("artifact.key", deferrable=True, initially="DEFERRED"), index=True
    )
    size_bytes: Mapped[int]
    card: Mapped[ModelCard | None]
    reason: Mapped[Reason | None]
    message: Mapped[str | None]
    revision: Mapped[int]

    __table_args__ = (Index(None, "created_at", "model_id"),)


class DeploymentRow(Base):
    __tablename__ = "deployment"

    deployment_id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("model.model_id", ondelete="CASCADE"))
    name: Mapped[str]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    endpoint_timeout_s: Mapped[int]
    wanted: Mapped[bool]
    revision: Mapped[int]

    __table_args__ = (
        Index(None, "created_at", "deployment_id"),
        Index(None, "model_id", "created_at"),
        Index(None, "name", "created_at"),
        # Requests are routed by name, so only one of a name may be wanted at a time.
        Index(
            "uq_deployment_wanted_name",
            "name",
            unique=True,
            sqlite_where=text("wanted"),
            postgresql_where=text("wanted"),
        ),
    )


class VersionRow(Base):
    __tablename__ = "version"

    version_id: Mapped[str] = mapped_column(primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployment.deployment_id", ondelete="CASCADE"))
    model_id: Mapped[str] = mapped_column(ForeignKey("model.model_id", ondelete="CASCADE"), index=True)
    number: Mapped[int]
    name: Mapped[str]
    spec: Mapped[DeploySpec]
    runtime: Mapped[Runtime]
    job_id: Mapped[str]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    state: Mapped[VersionState] = mapped_column(index=True)
    artifact_key: Mapped[str | None]  # no foreign key: a retired version may outlive its artifact
    reason: Mapped[Reason | None]
    message: Mapped[str | None]
    log_tail: Mapped[tuple[str, ...]]
    deployed_at: Mapped[datetime | None]
    revision: Mapped[int]

    __table_args__ = (UniqueConstraint("deployment_id", "number"),)


class ReplicaRow(Base):
    __tablename__ = "replica"

    replica_id: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("version.version_id", ondelete="CASCADE"), index=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployment.deployment_id", ondelete="CASCADE"), index=True)
    token: Mapped[str]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    state: Mapped[ReplicaState] = mapped_column(index=True)
    pid: Mapped[int | None]
    process_started_at: Mapped[float | None]
    socket: Mapped[str | None]
    host: Mapped[str]
    engine: Mapped[str]
    compute_type: Mapped[str]
    runs_on: Mapped[str]
    restarts: Mapped[int]
    timings: Mapped[dict[str, Any] | None]
    failure: Mapped[ReplicaFailure | None]
    started_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]
    revision: Mapped[int]
    gpus: Mapped[tuple[str, ...]] = mapped_column(server_default="[]")
    engine_group: Mapped[str] = mapped_column(server_default="")


class JobRow(Base):
    """No foreign keys: what was done is told also after the model is gone."""

    __tablename__ = "job"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str]
    action: Mapped[Action]
    created_at: Mapped[datetime]
    modified_at: Mapped[datetime]
    status: Mapped[JobStatus]
    phase: Mapped[Phase]
    percentage: Mapped[int]
    message: Mapped[str]
    reason: Mapped[Reason | None]
    log_tail: Mapped[tuple[str, ...]]
    logs: Mapped[tuple[PhaseLog, ...]]
    deployment_id: Mapped[str | None] = mapped_column(index=True)
    deployment_name: Mapped[str | None]
    version_id: Mapped[str | None] = mapped_column(index=True)
    deployment_version: Mapped[int | None]
    warnings: Mapped[tuple[str, ...]]
    response: Mapped[dict[str, Any] | None]
    cancel_requested: Mapped[bool]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    revision: Mapped[int]
    request: Mapped[dict[str, Any]]

    __table_args__ = (
        Index(None, "created_at", "job_id"),
        Index(None, "model_id", "created_at"),
        Index(None, "status", "created_at"),
    )


class EventRow(Base):
    """`position` orders events of the same instant. No foreign keys, as for jobs."""

    __tablename__ = "event"

    position: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    event_id: Mapped[str] = mapped_column(unique=True)
    at: Mapped[datetime]
    subject: Mapped[str]
    before: Mapped[str | None]
    after: Mapped[str]
    reason: Mapped[str]
    message: Mapped[str]
    actor: Mapped[str]
    deployment_id: Mapped[str | None]
    model_id: Mapped[str | None]

    __table_args__ = (
        Index(None, "at", "position"),
        Index(None, "subject", "at"),
        Index(None, "deployment_id", "at"),
        Index(None, "model_id", "at"),
    )


class AppRow(Base):
    __tablename__ = "app"

    app_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    scopes: Mapped[tuple[Scope, ...]]
    created_at: Mapped[datetime]
    revision: Mapped[int]


class ApiKeyRow(Base):
    __tablename__ = "api_key"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    last_four: Mapped[str]
    created_at: Mapped[datetime]
    app_id: Mapped[str | None] = mapped_column(ForeignKey("app.app_id", ondelete="CASCADE"), index=True)
    deployment_id: Mapped[str | None] = mapped_column(
        ForeignKey("deployment.deployment_id", ondelete="CASCADE"), index=True
    )
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    revision: Mapped[int]

    __table_args__ = (CheckConstraint("(app_id IS NULL) <> (deployment_id IS NULL)", name="one_owner"),)


class UploadSessionRow(Base):
    """No foreign keys: the model and the job are made when the upload is complete."""

    __tablename__ = "upload_session"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str]
    file_name: Mapped[str]
    extension: Mapped[FileExtension]
    file_size: Mapped[int]
    total_chunks: Mapped[int]
    name: Mapped[str]
    model_type: Mapped[ModelType]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    base_model_id: Mapped[str | None]
    is_adapter: Mapped[bool]
    job_id: Mapped[str | None]
    revision: Mapped[int]
    is_whole: Mapped[bool] = mapped_column(server_default=false())


class UploadChunkRow(Base):
    __tablename__ = "upload_chunk"

    session_id: Mapped[str] = mapped_column(
        ForeignKey("upload_session.session_id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int]
    sha256: Mapped[str]
