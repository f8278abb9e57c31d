"""More of anything never needs less; more memory never fits less; who is named as fitting does fit."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dockyard.domain.card import Dimensions, Family, ModelCard
from dockyard.domain.compatibility import COMPUTE_TYPES, QUANTIZATIONS
from dockyard.domain.devices import DEVICES, Device
from dockyard.domain.fit import Fit, fit_device, smallest_device
from dockyard.domain.memory import memory_need
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import Invalid

WAYS = [
    (engine, quantization)
    for engine in (EngineName.TRANSFORMERS, EngineName.CTRANSLATE2, EngineName.VLLM)
    for quantization in QUANTIZATIONS[engine]
]
ways = st.sampled_from(WAYS)
devices = st.sampled_from(sorted(DEVICES)).map(DEVICES.__getitem__)
batches = st.integers(1, 256)


@st.composite
def cards(draw: st.DrawFn) -> ModelCard:
    """Decoders and encoder-decoders of any size, with and without windows and known dimensions."""
    layers, kv_heads = draw(st.integers(1, 80)), draw(st.sampled_from([1, 2, 3, 8, 16]))
    heads, head_width = kv_heads * draw(st.integers(1, 12)), draw(st.sampled_from([24, 64, 128]))
    kv_bytes = 2 * 2 * layers * kv_heads * head_width
    decoder = draw(st.booleans())
    dimensions = Dimensions(
        width=heads * head_width,
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        inner=draw(st.integers(1, 30_000)),
        window=draw(st.none() | st.integers(16, 8192)),
        window_layers=draw(st.integers(0, layers)),
    )
    parameters = draw(st.integers(100_000, 200_000_000_000))
    return ModelCard(
        architecture=draw(st.sampled_from(["LlamaForCausalLM", "BloomForCausalLM", "MistralForCausalLM"])),
        model_type="any",
        family=Family.DECODER if decoder else Family.ENCODER_DECODER,
        parameters=parameters,
        weights_bytes=2 * parameters,
        dtype=draw(st.sampled_from(["float16", "float32"])),
        context_length=draw(st.none() | st.integers(64, 200_000)),
        vocab_size=draw(st.integers(16, 300_000)),
        layers=layers,
        kv_bytes_per_token=kv_bytes,
        cross_kv_bytes_per_token=0 if decoder else kv_bytes,
        dimensions=draw(st.sampled_from([dimensions, None])),
    )


def need(card: ModelCard, way: tuple[EngineName, Quantization], kind: str, batch: int, context: int) -> int:
    return memory_need(card, way[0], COMPUTE_TYPES[*way, kind], kind, batch, context).total_bytes


def find_fit(card: ModelCard, way: tuple[EngineName, Quantization], device: Device, batch: int) -> Fit | None:
    try:
        return fit_device(card, *way, device, batch)
    except Invalid:
        return None


@given(cards(), ways, st.sampled_from(["cpu", "cuda"]), batches, st.integers(1, 50_000), st.integers(1, 5000))
def test_more_rows_tokens_or_parameters_never_need_less(
    card: ModelCard, way: tuple[EngineName, Quantization], kind: str, batch: int, context: int, more: int
) -> None:
    before = need(card, way, kind, batch, context)
    assert need(card, way, kind, batch + more, context) >= before
    assert need(card, way, kind, batch, context + more) >= before
    grown = replace(card, parameters=card.parameters + more, weights_bytes=card.weights_bytes + 2 * more)
    assert need(grown, way, kind, batch, context) >= before


@given(cards(), ways, devices, batches, st.integers(1, 100_000))
def test_what_fits_goes_on_fitting_when_memory_grows(
    card: ModelCard, way: tuple[EngineName, Quantization], device: Device, batch: int, more_mib: int
) -> None:
    fit = find_fit(card, way, device, batch)
    if fit is None:
        return
    larger = find_fit(card, way, replace(device, gpu_memory_mib=device.gpu_memory_mib + more_mib), batch)
    assert larger is not None
    assert larger.need.context_length >= fit.need.context_length


@given(cards(), ways, devices, batches)
def test_the_smallest_device_that_is_named_fits_and_none_is_named_only_when_none_does(
    card: ModelCard, way: tuple[EngineName, Quantization], device: Device, batch: int
) -> None:
    named = smallest_device(card, *way, batch)
    if named is None:
        assert find_fit(card, way, device, batch) is None
    else:
        assert find_fit(card, way, named, batch) is not None
    if find_fit(card, way, device, batch) is not None:
        assert named is not None
        assert named.total_gpu_bytes <= device.total_gpu_bytes


@given(cards(), ways, devices, st.integers(2, 256))
def test_a_smaller_batch_buys_no_shorter_context(
    card: ModelCard, way: tuple[EngineName, Quantization], device: Device, batch: int
) -> None:
    full, half = find_fit(card, way, device, batch), find_fit(card, way, device, batch // 2)
    if full is not None:
        assert half is not None
        assert half.need.context_length >= full.need.context_length
