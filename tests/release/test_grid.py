"""The grid program: labels, parameters, requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image, PngImagePlugin

import made_runs
from orchestrator.errors import RecipeError, StepFailed
from orchestrator.release import grid
from orchestrator.release.a1111 import parameters_by_prompt

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("front", "side", "behind")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    made = {}
    for number, row in enumerate(("lora3x3", "locon")):
        folder = made[row] = tmp_path / row
        folder.mkdir()
        for shade, name in enumerate(NAMES):
            Image.new("RGB", (64, 64), (40 + 90 * number, 60 * shade, 200)).save(folder / f"{name}.png")
    return made


def request(tmp_path: Path, folders: dict[str, Path], **more: object) -> Path:
    rows = [{"label": name, "folder": str(folder)} for name, folder in folders.items()]
    columns = [{"name": name, "label": f"from {name}", "prompt": f"krnk, from {name}"} for name in NAMES]
    table = {
        "output": str(tmp_path / "out"),
        "name": "krnk",
        "rows": rows,
        "columns": columns,
        "title": "krnk",
        "scale": 2,
        **more,
    }
    path = tmp_path / "request.json"
    path.write_text(json.dumps(table), "utf-8")
    return path


def test_images_without_parameters_take_those_of_the_request(tmp_path: Path, folders: dict[str, Path]) -> None:
    own = PngImagePlugin.PngInfo()
    own.add_text("parameters", "of its own")
    Image.new("RGB", (64, 64)).save(folders["locon"] / "side.png", pnginfo=own)
    rows = [
        {"label": name, "folder": str(folder), "parameters": {column: f"{name} {column}" for column in NAMES}}
        for name, folder in folders.items()
    ]
    assert grid.main([str(request(tmp_path, folders, rows=rows))]) == 0
    with Image.open(tmp_path / "out" / "krnk_grid.png") as picture:
        parameters = json.loads(picture.info["Pictures"])
        assert picture.info["parameters"] == "lora3x3 front"
    assert parameters["locon / from side"] == "of its own"
    assert parameters["locon / from behind"] == "locon behind"


def test_every_image_is_in_its_row_and_column(tmp_path: Path, folders: dict[str, Path]) -> None:
    assert grid.main([str(request(tmp_path, folders))]) == 0
    with Image.open(tmp_path / "out" / "krnk_grid.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 20) or []
        count = {colour: number for number, colour in colours}
        for row, name in enumerate(folders):
            for shade in range(3):
                assert count[40 + 90 * row, 60 * shade, 200] >= 128 * 128, (name, shade)
        rightmost = max(
            x for x in range(picture.width) if picture.convert("RGB").getpixel((x, picture.height - 20)) == (130, 120, 200)
        )
        assert rightmost > picture.width - 20


def test_the_same_images_give_the_same_bytes(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = request(tmp_path, folders)
    results = []
    for _ in range(2):
        assert grid.main([str(path)]) == 0
        results.append([(tmp_path / "out" / f"krnk_grid.{kind}").read_bytes() for kind in ("png", "webp")])
    assert results[0] == results[1]


def test_the_png_holds_labels_and_parameters(tmp_path: Path, folders: dict[str, Path]) -> None:
    for folder in folders.values():
        grid.save(Image.new("RGB", (64, 64)), folder / "side.png", {"parameters": "krnk, from side\nSteps: 28"})
    assert grid.main([str(request(tmp_path, folders))]) == 0
    with Image.open(tmp_path / "out" / "krnk_grid.png") as picture:
        assert json.loads(picture.info["Grid"])["rows"] == ["lora3x3", "locon"]
        assert json.loads(picture.info["Pictures"])["locon / from side"].endswith("Steps: 28")


def test_every_missing_image_is_named_at_once(
    tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders["locon"] / "side.png").unlink()
    (folders["lora3x3"] / "front.png").write_bytes(b"no picture")
    assert grid.main([str(request(tmp_path, folders))]) == 1
    err = capsys.readouterr().err
    assert "locon/side.png" in err
    assert "lora3x3/front.png" in err
    assert not (tmp_path / "out" / "krnk_grid.png").exists()


@pytest.mark.parametrize("broken", [{"rows": []}, {"columns": []}, {"name": ""}])
def test_a_request_without_content_is_an_error(tmp_path: Path, folders: dict[str, Path], broken: dict[str, object]) -> None:
    assert grid.main([str(request(tmp_path, folders, **broken))]) == 2


def test_transparency_becomes_white(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(folder / "front.png")
    picture, _ = grid.draw([""], [grid.GridColumn("front", "")], [[(folder / "front.png", "")]])
    assert picture.getcolors() == [(picture.width * picture.height, (255, 255, 255))]


def test_a_grid_too_wide_for_webp_is_scaled(tmp_path: Path) -> None:
    grid.save_webp(Image.new("RGB", (20000, 100)), tmp_path / "wide.webp")
    with Image.open(tmp_path / "wide.webp") as picture:
        assert picture.width == grid.WEBP_SIDE


def test_a_missing_image_names_the_render_step(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="render step"):
        grid.draw(["x"], [grid.GridColumn("front", "front")], [[(tmp_path / "front.png", "")]])


def test_rows_and_columns_are_read_from_the_command_line(folders: dict[str, Path]) -> None:
    rows, columns = grid.parse([f"sv_ratio=16={folders['locon']}", str(folders["lora3x3"])])
    assert [row.label for row in rows] == ["sv_ratio=16", "lora3x3"]
    assert [column.name for column in columns] == sorted(NAMES)
    assert grid.parse([str(folders["locon"])], ["side=from the side"])[1] == [grid.GridColumn("side", "from the side")]


@pytest.mark.parametrize("rows", [[], ["x=/nowhere"]])
def test_rows_without_images_are_an_error(rows: list[str]) -> None:
    with pytest.raises(RecipeError):
        grid.parse(rows)


def test_a_row_with_a_recipe_takes_the_parameters_of_its_prompts(tmp_path: Path, folders: dict[str, Path]) -> None:
    recipe = next(each.recipe for each in made_runs.recipes() if each.recipe.algorithm == "locon")
    columns = recipe.columns()[:2]
    for column in columns:
        Image.new("RGB", (64, 64)).save(folders["locon"] / f"{column['name']}.png")
    rows = [{"label": "locon", "folder": str(folders["locon"]), "recipe": recipe.model_dump(mode="json")}]
    assert grid.main([str(request(tmp_path, folders, rows=rows, columns=columns))]) == 0
    with Image.open(tmp_path / "out" / "krnk_grid.png") as picture:
        parameters = json.loads(picture.info["Pictures"])
    expected = parameters_by_prompt(recipe)
    assert parameters == {f"locon / {column['label']}": expected[column["name"]] for column in columns}
    assert f"<lora:{recipe.name}:" in picture.info["parameters"]
