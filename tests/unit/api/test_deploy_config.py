"""deployconfig.json of an export is the body of a deploy: read back, it gives the parameters that it was made from."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.api.wire.base import unknown_fields
from dockyard.api.wire.deploy import DeployIn
from dockyard.domain import spec
from dockyard.domain.devices import DEVICES
from dockyard.domain.export import deploy_config
from dockyard.domain.model import Model
from dockyard.domain.spec import DeploySpec, EngineName, HyperParameters, ModelType, Quantization, Scaling

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = Model(
    model_id="cm-1", name="m", model_type=ModelType.FINE_TUNE, source={"path": "/m"}, created_at=NOW, modified_at=NOW
)


def whole(bounds: spec.Bounds) -> st.SearchStrategy[int]:
    return st.integers(bounds.low, bounds.high)


@st.composite
def specs(draw: st.DrawFn, unit_ms: int) -> DeploySpec:
    optimization, quantization = draw(
        st.sampled_from(
            [
                (None, Quantization.NONE),
                (EngineName.CTRANSLATE2, Quantization.NONE),
                (EngineName.CTRANSLATE2, Quantization.INT8_FLOAT16),
                (EngineName.VLLM, Quantization.NONE),
            ]
        )
    )
    low = draw(whole(spec.MIN_REPLICAS))
    return DeploySpec(
        hyper=HyperParameters(
            temperature=draw(st.floats(*spec.TEMPERATURE)),
            max_tokens=draw(whole(spec.MAX_TOKENS)),
            top_p=draw(st.floats(*spec.TOP_P)),
            top_k=draw(whole(spec.TOP_K)),
            stop=tuple(draw(st.lists(st.text("ab\n ä", min_size=1), max_size=3))),
        ),
        device_type=draw(st.sampled_from(sorted(DEVICES))),
        scaling=Scaling(
            max_batch_size=draw(whole(spec.MAX_BATCH_SIZE)),
            min_replicas=low,
            max_replicas=draw(st.integers(low, spec.MAX_REPLICAS.high)),
            scale_up_delay_ms=draw(whole(spec.SCALE_UP_DELAY)) * unit_ms,
            scale_down_delay_ms=draw(whole(spec.SCALE_DOWN_DELAY)) * unit_ms,
        ),
        optimization=optimization,
        quantization=quantization,
    )


@given(st.data(), st.sampled_from([1, 1000]))
def test_what_is_read_back_is_what_was_deployed(data: st.DataObject, unit_ms: int) -> None:
    wanted = data.draw(specs(unit_ms))
    body = DeployIn.model_validate(deploy_config(MODEL, "Flan T5", wanted, unit_ms))
    wish = body.wish(ModelType.FINE_TUNE, unit_ms, unknown_fields(body))
    assert (wish.spec, wish.name, wish.warnings) == (wanted, "Flan T5", ())


@given(specs(1))
def test_delays_of_a_server_that_reads_another_unit_by_now_are_still_valid(wanted: DeploySpec) -> None:
    for then, now in ((1, 1000), (1000, 1)):
        scaling = Scaling(
            scale_up_delay_ms=wanted.scaling.scale_up_delay_ms * then,
            scale_down_delay_ms=wanted.scaling.scale_down_delay_ms * then,
        )
        spec_then = DeploySpec(hyper=wanted.hyper, device_type=wanted.device_type, scaling=scaling)
        DeployIn.model_validate(deploy_config(MODEL, "a", spec_then, now))


def test_without_a_deployment_the_parameters_are_absent() -> None:
    assert deploy_config(MODEL, None, None, 1) == {"name": "m", "modelType": "fineTune"}


@pytest.mark.parametrize(("told", "warned"), [("openSource", True), (7, True), ("fineTune", False), (None, False)])
def test_the_type_in_a_body_is_informational(told: object, warned: bool) -> None:
    wanted = DeploySpec(hyper=HyperParameters(temperature=1, max_tokens=16, top_p=1, top_k=50), device_type="g5.xlarge")
    body = DeployIn.model_validate({**deploy_config(MODEL, "a", wanted, 1), "modelType": told})
    wish = body.wish(ModelType.FINE_TUNE, 1, unknown_fields(body))
    assert [warning.startswith("modelType is ") for warning in wish.warnings] == [True] * warned
    assert wish.model_type is ModelType.FINE_TUNE
