"""Constraints inside vLLM: a logits processor in the process that has the model, where nothing may be raised.

vLLM's own structured outputs begin with the first token that it makes and need its tokenizer; these go on with a row
that was resumed. The row's schema and what is known of its output come with its sampling parameters.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from dockyard.engines.base import Row
from dockyard.engines.constraint import Constraints, Guide
from dockyard.engines.constraint_mask import bar_
from dockyard.engines.vocabulary import read_vocabulary
from dockyard.errors import DockyardError
from dockyard.protocols.generation import WorkerSpec

# By name: vLLM is not in the environment in which types are checked.
_processing = import_module("vllm.v1.sample.logits_processor")
_LogitsProcessor: Any = _processing.LogitsProcessor

PROCESSOR = f"{__name__}:ConstraintProcessor"
_CONFIG = "dockyard"  # the part of vLLM's additional configuration that is ours
_SCHEMA, _KNOWN = "dockyard_schema", "dockyard_known"  # of a row's extra arguments


def config(spec: WorkerSpec) -> dict[str, Any]:
    """vLLM's `additional_config`."""
    return {_CONFIG: {"model_dir": spec.model_dir, "eos_token_ids": spec.eos_token_ids}}


def arguments(row: Row) -> dict[str, Any] | None:
    """A row's `extra_args`."""
    return None if row.constraint is None else {_SCHEMA: row.constraint.schema, _KNOWN: list(row.resume)}


class ConstraintProcessor(_LogitsProcessor):
    """Costs rows without a schema nothing."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        told = vllm_config.additional_config[_CONFIG]
        self._eos = [int(token) for token in told["eos_token_ids"]]
        self._constraints = Constraints(lambda: read_vocabulary(Path(told["model_dir"])), lambda: frozenset(self._eos))
        self._rows: dict[int, _Row] = {}
        try:
            self._constraints.prepare()  # now, as it would make rows wait later
        except DockyardError:
            return  # the worker finds the same, and tells those who ask for a constraint

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        _processing.process_dict_updates(self._rows, batch_update, self._begun)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        for index, row in self._rows.items():
            if not (row.follow() and bar_(logits[index], row.allowed)):
                # The end, and the worker, which follows the same grammar, sees that it comes too soon.
                logits[index] = float("-inf")
                logits[index, self._eos] = 0.0
        return logits

    def _begun(self, params: Any, prompt: list[int] | None, output: list[int]) -> "_Row | None":
        schema = (params.extra_args or {}).get(_SCHEMA)
        if schema is None:
            return None
        try:
            guide = self._constraints.compile(schema).begin(params.extra_args[_KNOWN])
        except DockyardError:
            guide = None
        return _Row(guide, output)


class _Row:
    """`output`: vLLM's own list, which grows; what is not known yet is a -1 there."""

    def __init__(self, guide: Guide | None, output: Sequence[int]) -> None:
        self.allowed = b""
        self._guide = guide
        self._output = output
        self._followed = 0

    def follow(self) -> bool:
        """Go on to where the output is; False if the grammar does not."""
        if self._guide is None:
            return False
        try:
            while self._followed < len(self._output) and self._output[self._followed] >= 0:
                self._guide.take(self._output[self._followed])
                self._followed += 1
            self.allowed = self._guide.allowed()
        except DockyardError:
            self._guide = None
            return False
        return True
