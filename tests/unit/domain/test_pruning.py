"""Which artifacts may go, decided without a disk."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from dockyard.domain.model import Artifact
from dockyard.domain.pruning import Cause, Usage, made_from, plan_prune

NOW = datetime(2026, 2, 5, tzinfo=UTC)
BEFORE = NOW - timedelta(days=30)
LONG_AGO = NOW - timedelta(days=31)


def artifact(key: str, source: str | None = None, engine: str | None = None, used: datetime = LONG_AGO) -> Artifact:
    return Artifact(
        key=key,
        source_key=source,
        engine=engine,
        quantization=None,
        size_bytes=1,
        created_at=LONG_AGO,
        last_used_at=used,
    )


def usage(
    named: Collection[str] = ("w",), busy: Collection[str] = (), *, settled: bool = True, **used: datetime
) -> Usage:
    return Usage(named=named, busy=busy, last_used=used, settled=settled)


def causes(artifacts: list[Artifact], used: Usage, stored: dict[str, int] | None = None) -> dict[str, Cause]:
    known = {artifact.key: 1 for artifact in artifacts}
    return {one.key: one.cause for one in plan_prune(artifacts, stored or known, used, BEFORE)}


W, C = artifact("w"), artifact("c", "w", "ctranslate2")


def test_imported_files_stay_and_what_was_made_from_them_goes_when_it_is_long_unused() -> None:
    assert causes([W, C], usage()) == {"c": Cause.UNUSED}
    assert causes([W, artifact("c", "w", "ctranslate2", NOW)], usage()) == {}
    assert causes([W, C], usage(c=NOW)) == {}
    assert causes([W, C], usage(busy=("c",))) == {}


def test_what_no_model_has_goes_whenever_it_was_used() -> None:
    fresh = [artifact("w", used=NOW), artifact("c", "w", "ctranslate2", NOW)]
    assert causes(fresh, usage(named=())) == {"w": Cause.UNREFERENCED, "c": Cause.UNREFERENCED}
    assert causes(fresh, usage(named=(), settled=False)) == {}  # an import may be about to name it


def test_a_merge_counts_for_the_model_that_has_it() -> None:
    merged, of_it = artifact("m", "a"), artifact("mc", "m", "ctranslate2")
    assert made_from({"a"}, [merged, of_it]) == {"a"}
    assert causes([artifact("a"), merged, of_it], usage(named=("a", "m"))) == {"m": Cause.UNUSED, "mc": Cause.UNUSED}
    gone = causes([artifact("a", used=NOW), merged, of_it], usage(named=("a",)))
    assert gone == {"m": Cause.UNREFERENCED, "mc": Cause.UNREFERENCED}


def test_folders_without_a_row_go_once_nothing_is_being_made() -> None:
    stored = {"w": 5, "x": 9, "y": 3}
    assert causes([W], usage(busy=("y",)), stored) == {"x": Cause.UNKNOWN}
    assert causes([W], usage(settled=False), stored) == {}
    assert [one.size_bytes for one in plan_prune([W], stored, usage(), BEFORE)] == [9, 3]
