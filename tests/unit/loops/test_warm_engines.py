"""An engine stays warm while a deployment uses it, and for a while after."""

from datetime import UTC, datetime

from dockyard.loops.warm_engines import WARM_FOR_S, WarmEngines


class HandClock:
    seconds = 100.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


def test_engines_in_use_are_warm_and_others_for_a_while() -> None:
    clock = HandClock()
    warm = WarmEngines(clock)
    assert list(warm.now()) == []
    warm.note("dp-1", ["ctranslate2", "transformers"])
    warm.note("dp-2", ["transformers"])
    assert set(warm.now()) == {"ctranslate2", "transformers"}

    clock.seconds += 10 * WARM_FOR_S
    assert set(warm.now()) == {"ctranslate2", "transformers"}
    warm.note("dp-1", [])  # its last version on them has retired
    warm.keep_only({"dp-1"})
    clock.seconds += WARM_FOR_S - 1
    assert set(warm.now()) == {"ctranslate2", "transformers"}
    clock.seconds += 1
    assert list(warm.now()) == []
