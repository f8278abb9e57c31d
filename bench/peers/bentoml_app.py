"""BentoML with a service that reads the request and answers; `bentoml serve` of its own environment runs it."""

from typing import Any

import bentoml

REPLY = {
    "id": "cmpl-0",
    "created": 0,
    "model": "echo",
    "choices": [{"index": 0, "text": "hi", "finish_reason": "length", "logprobs": None}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    "object": "text_completion",
}


@bentoml.service(workers=1)
class Noop:
    @bentoml.api(route="/predict")
    async def predict(self, model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
        return REPLY
