"""Known answers of real models, on every engine and precision, through the published API and the official client."""

from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from tests.acceptance.server import Server, body

SMOLLM2 = Path(__file__).parents[2] / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"
DATES = {
    "date: monday, march 3, 2014": "2014-03-03",
    "date: friday, december 31, 1999": "1999-12-31",
}
ENGINES = [("", ""), ("ctranslate2", "no_quantization"), ("ctranslate2", "int8_float16")]
COMPUTE = {("", ""): "float32", ENGINES[1]: "float32", ENGINES[2]: "int8_float32"}


@pytest.fixture(scope="module")
def t5(server: Server) -> str:
    return server.import_model("t5-date", "fineTune")


@pytest.fixture(scope="module")
def gpt2(server: Server) -> str:
    return server.import_model("gpt2-kjv")


@pytest.mark.parametrize(("optimization", "quantization"), ENGINES)
def test_t5_date_is_exact(server: Server, t5: str, optimization: str, quantization: str) -> None:
    name = f"date {optimization} {quantization}".strip()
    ended = server.deploy(t5, body(name, optimization, quantization), "fineTune")
    assert ended["response"]["computeType"] == COMPUTE[optimization, quantization]
    for prompt, answer in DATES.items():
        assert server.complete(name, prompt, temperature=0) == answer
    server.wait(server.post(f"/models/{t5}/undeploy?name={name}")["dockStatusId"])


def test_gpt2_greedy_text_is_equal_on_ctranslate2_and_transformers(server: Server, gpt2: str) -> None:
    server.deploy(gpt2, body("kjv-ct2", "ctranslate2", "no_quantization"))
    server.deploy(gpt2, body("kjv-hf"))
    for prompt in ("In the beginning", "And the LORD said unto Moses,", "Blessed"):
        texts = [server.complete(name, prompt, temperature=0, max_tokens=48) for name in ("kjv-ct2", "kjv-hf")]
        assert texts[0] == texts[1]
        assert len(texts[0]) > 40


def test_the_openai_client_streams_what_it_gets_at_once(server: Server, gpt2: str) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
    assert "kjv-ct2" in [model.id for model in client.models.list()]
    whole = client.completions.create(model="kjv-ct2", prompt="In the", temperature=0, max_tokens=24)
    stream = client.completions.create(
        model="kjv-ct2",
        prompt="In the",
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens == 24


@pytest.mark.smollm2
@pytest.mark.skipif(not SMOLLM2.exists(), reason="scripts/fetch_smollm2.py could not get the weights")
def test_smollm2_says_paris(server: Server) -> None:
    wish = {"name": "SmolLM2", "modelType": "openSource", "source": {"path": str(SMOLLM2)}}
    accepted = server.call("POST", "/models", json=wish).json()
    server.wait(accepted["dockStatusId"])
    client = OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
    # At 8 bits a model this small is at the edge of what it knows; with this system message it still knows Paris.
    for quantization, system in (("no_quantization", None), ("int8_float16", "You are a helpful AI assistant.")):
        name = f"smol {quantization}"
        server.deploy(accepted["modelId"], body(name, "ctranslate2", quantization))
        question: ChatCompletionMessageParam = {"role": "user", "content": "What is the capital of France?"}
        reply = client.chat.completions.create(
            model=name,
            messages=[{"role": "system", "content": system}, question] if system else [question],
            temperature=0,
            max_tokens=32,
        )
        assert reply.choices[0].message.content == "The capital of France is Paris."
        assert reply.choices[0].finish_reason == "stop"
