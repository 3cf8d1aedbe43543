"""Notes of an import on one screen, or one a line."""

from __future__ import annotations

from orchestrator.importers import summary
from orchestrator.importers.notes import Disposition, Note
from orchestrator.importers.to_recipe import ImportedRecipe

KEPT, CHANGED, LOST = Disposition.KEPT, Disposition.CHANGED, Disposition.LOST
NOTES = (
    Note(KEPT, "seed", "training.seed"),
    Note(KEPT, "color_aug", why="off"),
    Note(CHANGED, "dim", "network.dim", "it is larger", (9, 8)),
    Note(LOST, "unit", why="of the interface"),
    Note(LOST, "model_list", why="of the interface"),
    Note(LOST, "odd", why="unknown"),
)


def lines(*notes: Note, whole: bool = False) -> list[str]:
    return summary.lines(ImportedRecipe("cat", {}, notes), whole=whole)


def test_a_screen_has_the_gravest_first_and_groups_by_reason() -> None:
    assert lines(*NOTES) == [
        "cat: 2 kept, 1 changed, 3 lost",
        "  lost     unit, model_list   (of the interface)",
        "           odd   (unknown)",
        "  changed  dim -> network.dim   (9 -> 8; it is larger)",
        "  kept     seed",
        "           1 that are off, empty or a default there",
        "  --all lists every setting with its key and reason",
    ]


def test_the_whole_list_has_a_line_for_each_setting() -> None:
    assert lines(*NOTES, whole=True) == [
        "cat: 2 kept, 1 changed, 3 lost",
        "  lost     unit   (of the interface)",
        "  lost     model_list   (of the interface)",
        "  lost     odd   (unknown)",
        "  changed  dim -> network.dim   (9 -> 8; it is larger)",
        "  kept     seed -> training.seed",
        "  kept     color_aug   (off)",
    ]


def test_names_beyond_four_are_counted() -> None:
    same = [Note(LOST, f"n{number}", why="x") for number in range(6)]
    assert lines(*same)[1] == "  lost     n0, n1, n2, n3 and 2 more   (x)"


def test_a_disposition_takes_its_lines_and_no_more() -> None:
    for disposition, most in ((LOST, 10), (CHANGED, 8)):
        for number in (most, most + 1):
            made = lines(*(Note(disposition, f"n{index}", why=f"reason {index}") for index in range(number)))[1:-1]
            assert len(made) == most
            assert made[-1].strip() == ("…" if number > most else f"n{most - 1}   (reason {most - 1})")


def test_names_of_kept_settings_are_wrapped_and_cut() -> None:
    kept = [Note(KEPT, f"setting_{index:02}_{'x' * 28}", "a.b") for index in range(20)]  # two on a line of 88 letters
    made = lines(*kept)[1:-1]
    assert len(made) == 4
    assert made[0] == f"  kept     {kept[0].name}, {kept[1].name},"
    assert made[-1].strip() == "…"
    with_idle = lines(*kept, Note(KEPT, "off"))[1:-1]
    assert [line.strip() for line in with_idle[-2:]] == ["…", "1 that are off, empty or a default there"]
    assert len(with_idle) == 4
    assert not any("…" in line for line in lines(*kept[:8])[1:-1])


def test_a_long_reason_is_wrapped_below_its_name() -> None:
    made = lines(Note(LOST, "odd", why=" ".join(["words"] * 20)))[1:-1]
    assert [len(line) <= 11 + 88 for line in made] == [True, True]
    assert made[1].startswith(" " * 13 + "words")
