"""Whatever an entity holds comes back as it was, from both databases."""

import dataclasses
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dockyard.domain.access import ApiKey, App
from dockyard.domain.card import Dimensions, Family, ModelCard
from dockyard.domain.deployment import Deployment, Version
from dockyard.domain.event import Event
from dockyard.domain.job import Job
from dockyard.domain.model import Artifact, Model
from dockyard.domain.replica import Replica
from dockyard.domain.spec import ModelType
from dockyard.store.columns import REPLACEMENT, json_text
from dockyard.store.database import Store
from dockyard.store.rows import Entity, field_names, table_of
from dockyard.store.tables import (
    ApiKeyRow,
    AppRow,
    ArtifactRow,
    Base,
    DeploymentRow,
    EventRow,
    JobRow,
    ModelRow,
    ReplicaRow,
    VersionRow,
)
from dockyard.store.transaction import Transaction

NOW = datetime(2026, 2, 5, tzinfo=UTC)
ROWS: dict[type[Entity], type[Base]] = {
    ApiKey: ApiKeyRow,
    App: AppRow,
    Artifact: ArtifactRow,
    Deployment: DeploymentRow,
    Event: EventRow,
    Job: JobRow,
    Model: ModelRow,
    Replica: ReplicaRow,
    Version: VersionRow,
}

# NUL and halves of surrogate pairs have a test of their own.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
INSTANTS = st.datetimes(
    min_value=datetime(1970, 1, 2),
    max_value=datetime(9998, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))]),
)
LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: INTEGERS,
    float: FLOATS,
    bool: st.booleans(),
    datetime: INSTANTS,
    type(None): st.none(),
    Any: JSON,
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Anything of a field's type."""
    if hint in LEAVES:
        return LEAVES[hint]
    if isinstance(hint, types.UnionType):
        return st.one_of(*(values(argument) for argument in get_args(hint)))
    if get_origin(hint) is tuple:
        return st.lists(values(get_args(hint)[0]), max_size=4).map(tuple)
    if get_origin(hint) is dict:
        return st.dictionaries(*(values(argument) for argument in get_args(hint)), max_size=4)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    return entities(hint)


def entities(kind: type[Any], **fixed: Any) -> st.SearchStrategy[Any]:
    fields = {name: values(hint) for name, hint in get_type_hints(kind).items()}
    return st.builds(kind, **{**fields, **{name: st.just(value) for name, value in fixed.items()}})


on_both_databases = settings(
    max_examples=25,
    deadline=None,
    # The store is made once for all examples; each one deletes what it added.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def check(store: Store, repository: Callable[[Transaction], Any], entity: Any, id: str) -> None:
    async with store.transaction() as tx:
        await repository(tx).add(entity)
        assert await repository(tx).get(id) == entity
        await repository(tx).delete(id)


@on_both_databases
@given(job=entities(Job, job_id="ds-1"))
async def test_a_job(store: Store, job: Job) -> None:
    await check(store, lambda tx: tx.jobs, job, "ds-1")


@on_both_databases
@given(model=entities(Model, model_id="cm-1"))
async def test_a_model(store: Store, model: Model) -> None:
    await check(store, lambda tx: tx.models, model, "cm-1")


@on_both_databases
@given(event=entities(Event, event_id="ev-1"))
async def test_an_event(store: Store, event: Event) -> None:
    await check(store, lambda tx: tx.events, event, "ev-1")


@on_both_databases
@given(app=entities(App, app_id="app-1"), key=entities(ApiKey, key_id="ak-1", app_id="app-1", deployment_id=None))
async def test_an_app_and_its_key(store: Store, app: App, key: ApiKey) -> None:
    async with store.transaction() as tx:
        await tx.apps.add(app)
        await tx.keys.add(key)
        assert await tx.apps.get("app-1") == app
        assert await tx.keys.get("ak-1") == key
        await tx.apps.delete("app-1")


@on_both_databases
@given(
    deployment=entities(Deployment, deployment_id="dp-1", model_id="cm-1"),
    version=entities(Version, version_id="vr-1", deployment_id="dp-1", model_id="cm-1"),
    replica=entities(Replica, replica_id="rp-1", version_id="vr-1", deployment_id="dp-1"),
)
async def test_a_deployment_its_version_and_its_replica(
    store: Store, deployment: Deployment, version: Version, replica: Replica
) -> None:
    async with store.transaction() as tx:
        await tx.models.add(a_model())
        await tx.deployments.add(deployment)
        await tx.versions.add(version)
        await tx.replicas.add(replica)
        assert await tx.deployments.get("dp-1") == deployment
        assert await tx.versions.get("vr-1") == version
        assert await tx.replicas.get("rp-1") == replica
        await tx.models.delete("cm-1")


def a_model(**changes: Any) -> Model:
    model = Model(model_id="cm-1", name="m", model_type=ModelType.FINE_TUNE, source={}, created_at=NOW, modified_at=NOW)
    return dataclasses.replace(model, **changes)


async def test_instants_come_back_in_utc(store: Store) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=2)))
    async with store.transaction() as tx:
        await tx.models.add(a_model(created_at=elsewhere))
        model = await tx.models.get("cm-1")
    assert model.created_at.isoformat() == "2026-02-05T00:00:00+00:00"


async def test_text_that_a_database_would_refuse_is_mended_and_kept_inside_json(store: Store) -> None:
    source = {"path": "/models/\udcff\0"}
    async with store.transaction() as tx:
        await tx.models.add(a_model(message="a\0b\udcffc", source=source))
        model = await tx.models.get("cm-1")
    assert model.message == f"a{REPLACEMENT}b{REPLACEMENT}c"
    assert model.source == source


async def test_numbers_that_json_lacks_become_null(store: Store) -> None:
    card = ModelCard(
        architecture="LlamaForCausalLM",
        model_type="llama",
        family=Family.DECODER,
        parameters=2**70,
        weights_bytes=1,
        dtype="float32",
        context_length=None,
        vocab_size=1,
        layers=1,
        kv_bytes_per_token=1,
        generation_defaults={"penalty": float("inf"), "list": [float("nan"), 1.5]},
    )
    async with store.transaction() as tx:
        await tx.models.add(a_model(card=card))
        read = (await tx.models.get("cm-1")).card
    assert read == dataclasses.replace(card, generation_defaults={"penalty": None, "list": [None, 1.5]})
    assert json_text([float("-inf")]) == "[null]"


async def test_the_dimensions_of_a_card_come_back(store: Store) -> None:
    dimensions = Dimensions(width=8, heads=4, kv_heads=2, head_width=2, inner=32, window=16, window_layers=1)
    card = ModelCard(
        architecture="LlamaForCausalLM",
        model_type="llama",
        family=Family.DECODER,
        parameters=1,
        weights_bytes=1,
        dtype="float32",
        context_length=64,
        vocab_size=1,
        layers=2,
        kv_bytes_per_token=1,
        tokenizer_kind="BPE",
        tokenizer_size=3,
        active_parameters=1,
        dimensions=dimensions,
    )
    async with store.transaction() as tx:
        await tx.models.add(a_model(card=card))
        assert (await tx.models.get("cm-1")).card == card


async def test_an_instant_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(Exception, match="refused a statement") as refused:
        async with store.transaction() as tx:
            await tx.models.add(a_model(created_at=datetime(2026, 2, 5)))
    assert "needs a zone" in str(refused.value.__cause__)


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_a_table_has_a_column_for_every_field(kind: type[Entity]) -> None:
    columns = set(table_of(ROWS[kind]).columns.keys())
    assert columns - {"position"} == set(field_names(kind))
