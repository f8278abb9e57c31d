"""A constraint's bits on a row of logits. Apart from `constraint`, which does without torch."""

import numpy as np
import torch


def bar_(logits: torch.Tensor, allowed: bytes) -> bool:
    """Give every token of the row (one dimension) that is not allowed no chance, in place; False if none has any."""
    size = logits.shape[0]
    bits = np.unpackbits(np.frombuffer(allowed, dtype=np.uint8), bitorder="little")
    barred = np.ones(size, dtype=np.bool_)  # a model may have more logits than its tokenizer has tokens
    barred[: bits.size] = bits[:size] == 0
    logits.masked_fill_(torch.from_numpy(barred).to(logits.device), float("-inf"))
    return bool(logits.max() > float("-inf"))
