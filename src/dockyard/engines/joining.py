"""A decoder of Transformers whose running batch lets rows in and out at every step."""

import inspect
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dockyard.domain.batching import alike
from dockyard.engines.base import Chance
from dockyard.engines.choosing import Chooser, Picker
from dockyard.engines.continuous import Seat
from dockyard.engines.failures import translated
from dockyard.engines.row_cache import RowCache

# Tokens of prompts that are read between two steps of those who generate. On a CPU they take some four of SmolLM2's
# steps of ten rows; on a GPU, where nothing was measured, a prompt costs less than its tokens tell.
CHUNK = {"cpu": 256, "cuda": 2048}
CHUNK_ALONE = 2048  # while nobody generates; bounds what the activations take


class JoiningDecoder:
    """`InFlight` for any decoder-only model of the library's. Prompts are read in a cache of their own, in chunks and
    in turns; their keys and values are then laid beside those of the rows that run (ADR 21).
    """

    def __init__(self, model: Any, *, capacity: int, never: Sequence[int]) -> None:
        self._model = model
        self._capacity = capacity
        self._never = never
        taken = inspect.signature(model.forward).parameters
        self._tells_positions = "position_ids" in taken  # BLOOM and MPT know distances alone
        # As far as each layer looks back; the library's own cache knows it of every architecture.
        self._windows = [
            layer.sliding_window if isinstance(layer, DynamicSlidingWindowLayer) else None
            for layer in DynamicCache(config=model.config).layers
        ]
        self._last_scores_only = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}
        self.clear()

    def clear(self) -> None:
        self._prompts: deque[_Prompts] = deque()
        self._rows: list[_Row] = []
        self._picker: Picker | None = None  # of the rows, made anew when they change
        self._cache = RowCache(self._capacity, self._windows)

    def join(self, seats: Sequence[Seat]) -> None:
        rows: list[_Row] = []
        for seat in seats:
            try:
                rows.append(_Row(seat))
            except Exception as error:  # noqa: BLE001  as when what is known of it is not of its schema
                seat.end(translated(error, "beginning the row"))
        for part in _parts(rows):
            self._prompts.append(_Prompts(part, DynamicCache(config=self._model.config), self._model.device))

    @torch.inference_mode()
    def step(self) -> bool:
        self._let_go()
        reads = bool(self._prompts)
        room = CHUNK[self._model.device.type] if self._rows else CHUNK_ALONE
        for _ in range(len(self._prompts)):  # each at most once; the first whatever its size
            if room > 0:
                room -= self._read(self._prompts.popleft(), room)
        if self._rows:
            self._advance()
        return not reads

    def _let_go(self) -> None:
        """Whoever was cancelled while prompts are read needs no seat; those who run leave at their next token."""
        for prompts in self._prompts:
            for row in prompts.rows:
                if row.seat.cancelled:
                    row.seat.end()
        self._prompts = deque(prompts for prompts in self._prompts if not prompts.ended)

    def _read(self, prompts: "_Prompts", room: int) -> int:
        """The next columns of these prompts, `room` tokens at most but one column at least. How many tokens it was."""
        begins, prompts.read = prompts.read, min(prompts.read + max(1, room // len(prompts.rows)), prompts.width)
        try:
            ids, mask = prompts.ids[:, begins : prompts.read], prompts.mask[:, : prompts.read]
            scores = self._scores(ids, mask, prompts.cache)
            if prompts.read < prompts.width:
                self._prompts.append(prompts)
            else:
                self._cache.stage(prompts.cache, [row.length for row in prompts.rows])
                self._note(prompts.rows, self._picker_of(prompts.rows).pick(scores))
        except Exception as error:  # noqa: BLE001  whatever the library throws, those who run are not to blame
            for row in prompts.rows:
                row.seat.end(translated(error, "reading the prompt"))
        prompts.rows[0].seat.flush()  # a first token waits for nobody else's prompt
        if prompts.read == prompts.width:
            self._seat(prompts)
        return (prompts.read - begins) * len(prompts.rows)

    def _seat(self, prompts: "_Prompts") -> None:
        """Beside those who run. An error here is everybody's: the cache may be torn."""
        if not prompts.ended:
            others = len(self._rows)
            self._cache.seat([row.length for row in prompts.rows])
            self._rows += prompts.rows
            self._picker = None
            self._drop([*[False] * others, *(row.seat.ended for row in prompts.rows)])
        elif not self._rows:
            self._cache.narrow(0)

    def _advance(self) -> None:
        """The next token of each row."""
        if self._picker is None:
            self._picker = self._picker_of(self._rows)
        device = self._model.device
        lengths = torch.tensor([[row.length + 1] for row in self._rows], device=device)
        width = max(row.length for row in self._rows) + 1
        mask = (torch.arange(width, 0, -1, device=device) <= lengths).long()
        ids = torch.tensor([[row.token] for row in self._rows], device=device)
        scores = self._scores(ids, mask, self._cache)
        for row in self._rows:
            row.length += 1
        self._note(self._rows, self._picker.pick(scores))
        self._drop(self._picker.done)

    def _scores(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
        """Of the tokens that may follow; `mask` has a column for each that is in the cache, and for each of `ids`."""
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}
        if self._tells_positions:
            positions = mask.cumsum(dim=-1)[:, -ids.shape[1] :] - 1
            inputs["position_ids"] = positions.clamp_(min=0)
        output = self._model(**inputs, use_cache=True, return_dict=True, **self._last_scores_only)
        return output.logits[:, -1]

    def _picker_of(self, rows: "Sequence[_Row]") -> Picker:
        return Picker([row.chooser for row in rows], _Emitted([row.seat for row in rows]), self._never)

    def _note(self, rows: "Sequence[_Row]", tokens: torch.Tensor) -> None:
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.token = token

    def _drop(self, done: Sequence[bool]) -> None:
        """Those who have ended leave, and the cache is as wide as the longest of the others."""
        if not any(done):
            return
        for index in reversed(range(len(done))):
            if done[index]:
                self._cache.remove(index)
                last = self._rows.pop()
                if index < len(self._rows):
                    self._rows[index] = last
        self._cache.narrow(max((row.length for row in self._rows), default=0))
        self._picker = None


def settle_long_rope(model: Any, context: int | None) -> None:
    """One set of LongRoPE's frequencies for all texts: the long one where `context` (tokens; None: all that the model
    has) is longer than what the model was first trained on.

    The library takes the set that the longest row of a step asks for. Then a row's text would depend on its company,
    and a prompt that is read in chunks would be of both sets. vLLM decides it as here.
    """
    for module in model.modules():
        if getattr(module, "rope_type", None) != "longrope":
            continue
        trained = module.config.rope_parameters["original_max_position_embeddings"]
        if (context or module.config.max_position_embeddings) > trained:
            frequencies, _ = ROPE_INIT_FUNCTIONS["longrope"](module.config, model.device, seq_len=trained + 1)
            module.original_inv_freq.copy_(frequencies)  # which is what short texts would get


class _Row:
    """`length`: tokens of it in a cache. `token`: the one that was chosen last, which is not in it yet."""

    __slots__ = ("chooser", "known", "length", "seat", "token")

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.chooser = Chooser(seat.row)
        self.known = [*seat.row.prompt, *seat.row.resume]
        self.length = len(self.known)
        self.token = 0


class _Prompts:
    """Rows whose prompts are read together, padded on the left: a decoder goes on at the right."""

    def __init__(self, rows: Sequence[_Row], cache: DynamicCache, device: torch.device) -> None:
        self.rows = rows
        self.read = 0  # columns
        self.width = max(row.length for row in rows)
        self.cache = cache
        pads = [self.width - row.length for row in rows]
        known = zip(pads, rows, strict=True)
        self.ids = torch.tensor([[0] * pad + row.known for pad, row in known], device=device)
        self.mask = torch.tensor([[0] * pad + [1] * (self.width - pad) for pad in pads], device=device)

    @property
    def ended(self) -> bool:
        return all(row.seat.ended for row in self.rows)


class _Emitted:
    """`Emit` for rows in these seats."""

    __slots__ = ("_seats",)

    def __init__(self, seats: Sequence[Seat]) -> None:
        self._seats = seats

    def __call__(self, index: int, token: int, chance: Chance | None = None) -> bool:
        return self._seats[index].take(token, chance)

    def fail(self, index: int, error: Exception) -> None:
        self._seats[index].end(error)


def _parts(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Rows in the order of their lengths, cut where one is much longer than the first of its part."""
    parts: list[list[_Row]] = []
    for row in sorted(rows, key=lambda row: row.length):
        if parts and alike(parts[-1][0].length, row.length):
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts
