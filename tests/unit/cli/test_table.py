"""A list on a terminal: where a table fits, and how a row reads where it does not."""

import io

import pytest

from dockyard.cli.table import in_words, print_table

ID = "cm-52fd4936-15b1-4e08-9b6b-bae81cf06f29"
COLUMNS = ("ID", "NAME", "STATE", "NOTE")


def printed(width: int, *rows: tuple[str, ...], patch: pytest.MonkeyPatch) -> str:
    patch.setenv("COLUMNS", str(width))
    out = io.StringIO()
    print_table(out, COLUMNS, rows)
    return out.getvalue()


def test_a_row_in_words_names_what_it_tells_and_leaves_out_what_it_has_not() -> None:
    text = in_words(COLUMNS, (ID, "t5", "Import Failed", "-"), 80)

    assert text == f"{ID}  t5\n  state Import Failed"


def test_a_row_in_words_is_folded_between_words_and_never_inside_an_id() -> None:
    text = in_words(("A", "B", "MODEL", "RUNS ON"), ("a", "b", ID, "cpu (standing in for g5.xlarge)"), 30)

    assert text.splitlines() == ["a  b", "  model", f"  {ID},", "  runs on cpu (standing in for", "  g5.xlarge)"]


def test_a_table_that_is_wide_enough_has_a_head_and_a_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    head, _, row = printed(90, (ID, "t5", "Ready to Deploy", "-"), patch=monkeypatch).strip().splitlines()

    assert head.split() == list(COLUMNS)
    assert row.split("  ")[0].strip() == ID


def test_a_sentence_is_folded_where_the_ids_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(80, (ID, "t5", "Ready to Deploy", "one two three four five six"), patch=monkeypatch)

    assert max(map(len, text.splitlines())) <= 80
    assert ID in text
    assert text.split()[:4] == list(COLUMNS)


@pytest.mark.parametrize(
    ("width", "note"),
    [(50, "-"), (80, "a sentence of so many words that in a narrow column it would take a whole page " * 2)],
)
def test_a_row_is_told_in_words_where_a_table_has_no_room(
    monkeypatch: pytest.MonkeyPatch, width: int, note: str
) -> None:
    text = printed(width, (ID, "t5", "Ready", note), patch=monkeypatch)

    assert text.startswith(f"{ID}  t5\n  state Ready")
    assert " ".join(note.split()) in " ".join(text.split()) or note == "-"


def test_what_looks_like_markup_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "[bold]a[/]" in printed(120, (ID, "[bold]a[/]", "Ready", "-"), patch=monkeypatch)
