"""What some engines can do for a request and others cannot, where that is known before one is asked."""

from typing import Final

from dockyard.domain.spec import EngineName

# Constraining the output to a schema, and telling the logarithms of probabilities: both need the scores of each step.
SEES_SCORES: Final = frozenset({EngineName.TRANSFORMERS, EngineName.VLLM})


def cannot_see_scores(engine: str, what: str, *, of: str | None = None) -> str | None:
    """Why `engine`, `of` a deployment, cannot do `what`; None if it can."""
    if engine in SEES_SCORES:
        return None
    able = " and ".join(sorted(SEES_SCORES))
    whose = f" of '{of}'" if of is not None else ""
    return f"the engine {engine}{whose} cannot do {what}; leave it out, or deploy the model on one that can: {able}"
