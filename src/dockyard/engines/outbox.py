"""Tokens on their way from an engine's thread to the event loop: a step's together, each row's end behind its last one.

A hop for each token would wake the loop while the rows behind it are still to be told, and then the two threads want
the interpreter at once: ten rows of CTranslate2 lost some 6 % of their speed to that.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from dockyard.engines.base import Chance, Generation


class Outbox:
    """One for each thread that computes. What the thread may call says so; the rest belongs to the loop.

    `told_at` (the loop's clock): when tokens last came out.
    """

    def __init__(self, eos_token_ids: frozenset[int]) -> None:
        self.told_at = 0.0
        self._eos = eos_token_ids
        self._left: dict[Generation, int] = {}  # tokens that each row which runs may still have; the thread's
        self._out: deque[tuple[Generation, int | None, Chance | BaseException | None]] = deque()
        self._hop_pending = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def use_this_loop(self) -> asyncio.AbstractEventLoop:
        """The one that runs now gets everything from here on."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    # On the thread

    def begin(self, generation: Generation) -> None:
        self._left[generation] = generation.row.max_new

    def take(self, generation: Generation, token: int, chance: Chance | None = None) -> bool:
        """Whether the row stops: at its end of sequence, at its `max_new`, or when nobody wants it any more.

        The loop has the token after the next `flush`.
        """
        left = self._left.get(generation, 0)
        if left == 0:
            return True
        self._left[generation] = left - 1
        self._out.append((generation, token, chance))
        stops = token in self._eos or left == 1 or generation.cancelled
        if stops:
            self._end(generation, None)
        return stops

    def taken(self, generation: Generation) -> int:
        """Tokens of a row that runs."""
        return generation.row.max_new - self._left.get(generation, generation.row.max_new)

    def end(self, generation: Generation, error: BaseException | None = None) -> None:
        """Nothing if it has ended. The loop hears of it after the next `flush`."""
        if generation in self._left:
            self._end(generation, error)

    def flush(self) -> None:
        """One hop of the loop carries all that is there."""
        if self._out and not self._hop_pending:
            self._hop_pending = True
            self.call_loop(self.deliver)

    def call_loop(self, callback: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _end(self, generation: Generation, error: BaseException | None) -> None:
        del self._left[generation]
        self._out.append((generation, None, error))

    # On the loop

    def deliver(self) -> None:
        """Hand what the thread has made to its rows, the tokens of several steps together."""
        self._hop_pending = False  # before the reading: whatever comes after it gets a hop of its own
        tokens: dict[Generation, list[int]] = {}
        chances: dict[Generation, list[Chance]] = {}
        ends: list[tuple[Generation, BaseException | None]] = []
        while self._out:
            generation, token, told = self._out.popleft()
            if not isinstance(told, Chance) and token is None:
                ends.append((generation, told))
            elif token is not None:
                tokens.setdefault(generation, []).append(token)
                if isinstance(told, Chance):
                    chances.setdefault(generation, []).append(told)
        if tokens and self._loop is not None:
            self.told_at = self._loop.time()
        for generation, ids in tokens.items():
            generation.deliver(ids, chances.get(generation, ()))
        for generation, error in ends:
            generation.end(error)
