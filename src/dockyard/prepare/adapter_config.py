"""`adapter_config.json` of PEFT, as far as a merge needs it; every kind of adapter that is not merged here is refused.

What the fields mean: `LoraConfig` in PEFT's reference.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dockyard.errors import Failed, Reason

ADAPTER_CONFIG = "adapter_config.json"

_LARGEST_RANK = 1 << 14
_LARGEST_ALPHA = 1e9
# Fields that change what the adapter computes into something else than a sum of W and B·A, each with what it is called.
_OTHER_KINDS = {
    "use_dora": "DoRA (use_dora)",
    "use_qalora": "QALoRA (use_qalora)",
    "use_bdlora": "block-diagonal LoRA (use_bdlora)",
    "lora_bias": "biases of the LoRA matrices (lora_bias)",
    "layer_replication": "repeated layers (layer_replication)",
    "target_parameters": "parameters outside of layers (target_parameters)",
    "trainable_token_indices": "single trained tokens (trainable_token_indices)",
    "alora_invocation_tokens": "activated LoRA (alora_invocation_tokens)",
    "arrow_config": "a router over adapters (arrow_config)",
    "velora_config": "VeLoRA (velora_config)",
    "monteclora_config": "MonteCLoRA (monteclora_config)",
}
# Initializations that also change the base's weights: the adapter fits those, not the ones of the registry.
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """`ranks` and `alphas` hold the patterns: end of a module's name → its own value."""

    rank: int
    alpha: float
    rank_stabilized: bool
    targets: tuple[str, ...]  # ends of module names; empty where the file has an expression instead
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    tuned_from: str  # base_model_name_or_path, for messages

    def rank_of(self, module: str) -> int:
        return int(_by_pattern(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        """What B·A is multiplied with: alpha / r, or alpha / √r if rank-stabilized."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alphas, module, self.alpha)
        return alpha / math.sqrt(rank) if self.rank_stabilized else alpha / rank


def read_lora_config(config: Mapping[str, Any] | None) -> LoraConfig:
    """Raises `Failed` (ADAPTER_UNREADABLE, ADAPTER_NOT_SUPPORTED)."""
    if config is None:
        raise _unreadable("it is no JSON object of a reasonable size")
    _refuse_other_kinds(config)
    targets = config.get("target_modules")
    return LoraConfig(
        rank=_rank(config.get("r"), "r"),
        alpha=_number(config.get("lora_alpha"), "lora_alpha"),
        rank_stabilized=config.get("use_rslora") is True,
        targets=tuple(targets) if isinstance(targets, list) and all(isinstance(t, str) for t in targets) else (),
        ranks={_plain(key): _rank(value, "rank_pattern") for key, value in _pattern(config, "rank_pattern")},
        alphas={_plain(key): _number(value, "alpha_pattern") for key, value in _pattern(config, "alpha_pattern")},
        tuned_from=str(config.get("base_model_name_or_path") or "")[:200],
    )


def merge_it_yourself(what: str) -> Failed:
    """The refusal of an adapter that is no plain LoRA."""
    return Failed(
        f"{what} cannot be merged here; load the adapter with PEFT, call merge_and_unload(), save_pretrained() the "
        "result and import that folder as a model of its own",
        reason=Reason.ADAPTER_NOT_SUPPORTED,
    )


def _refuse_other_kinds(config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise merge_it_yourself(f"an adapter of the type {ascii(kind)[:50]} (peft_type; only LORA is)")
    for field, called in _OTHER_KINDS.items():
        if config.get(field):
            raise merge_it_yourself(f"an adapter with {called}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGE_THE_BASE):
        raise merge_it_yourself(
            f"an adapter that changed its base when it was begun (init_lora_weights {ascii(start)[:50]})"
        )


def _by_pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    for pattern, value in patterns.items():
        exact = pattern.removeprefix("^")
        if module == exact or (exact == pattern and module.endswith(f".{pattern}")):
            return value
    return default


def _pattern(config: Mapping[str, Any], field: str) -> list[tuple[str, Any]]:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise _unreadable(f"{field} is no object")
    return list(value.items())


def _plain(pattern: str) -> str:
    r"""A key of a pattern as the end of a name (`^` in front: the whole name). PEFT takes them for expressions; those
    that its users write are names with their dots, escaped or not.
    """
    plain = pattern.replace("\\.", ".").removesuffix("$")
    if not plain.removeprefix("^").replace(".", "").replace("_", "").replace("-", "").isalnum():
        raise merge_it_yourself(f"an adapter whose patterns are expressions ({json.dumps(pattern)[:80]})")
    return plain


def _rank(value: Any, field: str) -> int:
    if type(value) is not int or not 0 < value <= _LARGEST_RANK:
        raise _unreadable(f"{field} must be a whole number from 1 to {_LARGEST_RANK}, got {ascii(value)[:50]}")
    return value


def _number(value: Any, field: str) -> float:
    if type(value) not in (int, float) or not abs(value) < _LARGEST_ALPHA:
        raise _unreadable(f"{field} must be a number, got {ascii(value)[:50]}")
    return float(value)


def _unreadable(why: str) -> Failed:
    return Failed(f"{ADAPTER_CONFIG} cannot be used: {why}; fetch the file again", reason=Reason.ADAPTER_UNREADABLE)
