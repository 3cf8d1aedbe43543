"""Views by their file names."""

from __future__ import annotations

import pytest

from orchestrator.errors import RecipeError
from tools.demo_world.attributes import parse_view
from tools.demo_world.captions import view_tags


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("f00", ("from front", "upper body")),
        ("f16", ("from above", "from side", "upper body")),
        ("b24", ("from below", "from behind", "full body")),
    ],
)
def test_view_of_a_file_name(name: str, tags: tuple[str, ...]) -> None:
    assert view_tags(parse_view(name)) == tags
    assert parse_view(name).name == name


def test_invalid_view() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_view("x00")
    assert (
        str(caught.value) == "x00  not a view\n    f or b, then the height 0..2, then the angle 0..7, for example f00 or b17"
    )
