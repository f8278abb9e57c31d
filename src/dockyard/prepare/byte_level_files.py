"""GPT-2's `vocab.json` and `merges.txt`, as OPT and others still come with, to `tokenizer.json`.

The files do not say how a text is cut before its bytes are merged, so only families whose rule is known are accepted.
"""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from dockyard.errors import Failed, Reason
from dockyard.prepare.tokenizer_layouts import token

_LIKE_GPT2 = ("bart", "codegen", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "opt", "phi")
_END = "<|endoftext|>"
# Family → special tokens by role, where tokenizer_config.json does not name them.
_DEFAULTS: dict[str, dict[str, str]] = {
    "opt": {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"},
    "bart": {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
}
_GPT2 = {"bos_token": _END, "eos_token": _END, "unk_token": _END}


def byte_level_tokenizer(
    ids: Mapping[str, int], merges: bytes, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> Tokenizer:
    """Raises `Failed` (TOKENIZER_MISSING) for a family whose rule is not known, and what the library raises."""
    kind = str(config.get("model_type"))
    if kind not in _LIKE_GPT2:
        raise Failed(
            f"vocab.json and merges.txt do not say how {kind[:50]} cuts a text; load the tokenizer with AutoTokenizer "
            "and save_pretrained it into the folder, which writes a tokenizer.json",
            reason=Reason.TOKENIZER_MISSING,
        )
    tokenizer = Tokenizer(models.BPE(dict(ids), _pairs(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space", False)))
    tokenizer.decoder = decoders.ByteLevel()
    special = {role: token(settings, role, name) for role, name in _DEFAULTS.get(kind, _GPT2).items()}
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=False, special=True) for name in dict.fromkeys(special.values())]
    )
    template = _template(kind, special, settings)
    if len(template) > 1:
        used = [name for name in template if name != "$A"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template,
            pair=[*template, *(f"{'$B' if part == '$A' else part}:1" for part in template)],
            special_tokens=[(name, tokenizer.token_to_id(name)) for name in dict.fromkeys(used)],
        )
    return tokenizer


def _template(kind: str, special: Mapping[str, str], settings: Mapping[str, Any]) -> list[str]:
    """What surrounds a text. OPT begins with its only special token, BART has both, the others neither."""
    if kind == "bart":
        return [special["bos_token"], "$A", special["eos_token"]]
    return [special["bos_token"], "$A"] if settings.get("add_bos_token", kind == "opt") else ["$A"]


def _pairs(merges: bytes) -> list[tuple[str, str]]:
    lines = merges.decode("utf-8").split("\n")
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    pairs: list[tuple[str, str]] = []
    for line in lines:
        parts = line.split()
        if len(parts) == 2:
            pairs.append((parts[0], parts[1]))
        elif parts:
            raise ValueError(f"merges.txt has a line that is no pair: {line[:50]!r}")
    return pairs
