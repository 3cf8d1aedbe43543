"""Program: images in folders to a labelled grid (PNG, WebP).

``python -m orchestrator.release.grid request.json``

Rows and columns may be algorithms, sv_ratios, multipliers, block weights or prompts. The same images and labels give the same
bytes, because no date is written. The PNG text of the grid holds the ``parameters`` text (A1111) of every image.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, PngImagePlugin

from orchestrator.errors import OrchestratorError, Problem, RecipeError, StepFailed
from orchestrator.release.a1111 import parameters_by_prompt
from orchestrator.release.request import read_recipe, read_request, require
from orchestrator.release.text_layout import layout
from orchestrator.run.paths import REQUEST
from orchestrator.system.files import draft
from orchestrator.system.terminal import print_progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.release.text_layout import TextLayout

PRELOAD = ("PIL.Image", "PIL.ImageDraw", "PIL.ImageFont", "PIL.PngImagePlugin", "PIL.WebPImagePlugin")

WEBP_SIDE = 16383  # the format's limit, in pixels
_GAP, _PAPER, _INK = 8, (255, 255, 255), (30, 32, 38)


@dataclass(frozen=True, slots=True)
class GridRow:
    """One row: label, folder of NAME.png, A1111's texts by column name."""

    label: str
    folder: Path
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GridColumn:
    """One column: name of its images, label and prompt."""

    name: str
    label: str
    prompt: str = ""


def _open(path: Path) -> tuple[Image.Image, str]:
    """Return an image on white, and its ``parameters`` text."""
    with Image.open(path) as file:
        parameters = str(file.info.get("parameters", ""))
        image = file.convert("RGBA")
    paper = Image.new("RGBA", image.size, (*_PAPER, 255))
    return Image.alpha_composite(paper, image).convert("RGB"), parameters


def draw(
    rows: Sequence[str],
    columns: Sequence[GridColumn],
    cells: Sequence[Sequence[tuple[Path, str]]],
    title: str = "",
    scale: int = 1,
) -> tuple[Image.Image, dict[str, str]]:
    """Return the grid, and the A1111 text of each image by "row / column".

    Args:
        rows: labels of the rows.
        columns: names and labels of the columns.
        cells: by row and column, an image and its A1111 text, for images without a text of their own.
        title: text above the grid, or "".
        scale: whole factor by which every image is enlarged.

    Raises:
        StepFailed: every image that is missing or cannot be read.
    """
    images: list[list[Image.Image]] = []
    parameters: dict[str, str] = {}
    problems: list[Problem] = []
    for row, paths in zip(rows, cells, strict=True):
        line: list[Image.Image] = []
        for column, (path, default) in zip(columns, paths, strict=True):
            try:
                image, own = _open(path)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                problems.append(Problem(str(path), f"cannot be read: {error}", "run the render step again"))
                continue
            if scale > 1:
                image = image.resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS)
            if own or default:
                parameters[f"{row} / {column.label}"] = own or default
            line.append(image)
        images.append(line)
    if problems:
        raise StepFailed(problems)
    return compose(rows, columns, title, images), parameters


def compose(rows: Sequence[str], columns: Sequence[GridColumn], title: str, images: list[list[Image.Image]]) -> Image.Image:
    """Return the grid of ``images[row][column]`` with labels and a title."""
    widths = [max(line[index].width for line in images) for index in range(len(columns))]
    heights = [max(image.height for image in line) for line in images]
    size = min(28, max(13, min(widths) // 12))
    heads = [layout(column.label, width - 4, size) for column, width in zip(columns, widths, strict=True)]
    widest = min(max(96, max(widths) * 2 // 3), 280)
    sides = [layout(row, widest, size, most=max(1, height // size // 2)) for row, height in zip(rows, heights, strict=True)]
    side = max((text.width for text in sides), default=0)
    left = side + 2 * _GAP if side else _GAP
    whole = left + sum(widths) + _GAP * len(widths)
    above = layout(title, whole - 2 * _GAP, size * 3 // 2, most=2) if title else None
    top = _GAP + (above.height + _GAP if above else 0)
    head = max(text.height for text in heads)
    height = top + head + _GAP + sum(heights) + _GAP * len(heights)
    canvas = Image.new("RGB", (whole, height), _PAPER)
    pen = ImageDraw.Draw(canvas)
    if above:
        _write(pen, above, (left, _GAP), _INK)
    x = left
    for text, width in zip(heads, widths, strict=True):
        _write(pen, text, (x + width // 2, top + head - text.height), _INK, centre=True)
        x += width + _GAP
    y = top + head + _GAP
    for text, line, tall in zip(sides, images, heights, strict=True):
        _write(pen, text, (_GAP, y + (tall - text.height) // 2), _INK)
        x = left
        for image, width in zip(line, widths, strict=True):
            canvas.paste(image, (x + (width - image.width) // 2, y + (tall - image.height) // 2))
            x += width + _GAP
        y += tall + _GAP
    return canvas


def _write(
    pen: ImageDraw.ImageDraw, text: TextLayout, at: tuple[int, int], ink: tuple[int, int, int], *, centre: bool = False
) -> None:
    for number, line in enumerate(text.lines):
        x = at[0] - round(text.font.getlength(line) / 2) if centre else at[0]
        # The font draws a box for a space that does not break.
        plain = line.replace("\N{NO-BREAK SPACE}", " ")
        pen.text((x, at[1] + number * text.line_height), plain, ink, font=text.font)


def save(image: Image.Image, path: Path, texts: dict[str, str]) -> None:
    """Write a PNG with the texts that are not empty.

    The same image and texts give the same bytes.
    """
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        if text:
            info.add_itxt(name, text) if not text.isascii() else info.add_text(name, text)
    with draft(path) as part:
        image.save(part, "PNG", pnginfo=info, compress_level=6)


def save_webp(image: Image.Image, path: Path) -> None:
    """Write a WebP, shrunk to the format's limit of 16383 pixels a side."""
    if max(image.size) > WEBP_SIDE:
        factor = WEBP_SIDE / max(image.size)
        image = image.resize((int(image.width * factor), int(image.height * factor)), Image.Resampling.LANCZOS)
    with draft(path) as part:
        image.save(part, "WEBP", quality=90, method=4)


def texts(rows: Sequence[str], columns: Sequence[GridColumn], title: str, parameters: dict[str, str]) -> dict[str, str]:
    """Return the PNG texts of a grid: labels and A1111's texts."""
    labels = {"rows": list(rows), "columns": [{"label": column.label, "prompt": column.prompt} for column in columns]}
    texts = {"parameters": next(iter(parameters.values()), ""), "Title": title, "Grid": json.dumps(labels, ensure_ascii=False)}
    return texts | {"Pictures": json.dumps(parameters, ensure_ascii=False) if parameters else ""}


def save_both(image: Image.Image, output: Path, name: str, texts: dict[str, str]) -> list[Path]:
    """Write NAME_grid.png (with texts) and NAME_grid.webp."""
    files = [output / f"{name}_grid.png", output / f"{name}_grid.webp"]
    save(image, files[0], texts)
    save_webp(image, files[1])
    return files


def write(
    output: Path, name: str, rows: Sequence[GridRow], columns: Sequence[GridColumn], *, title: str = "", scale: int = 1
) -> list[Path]:
    """Draw a grid of folders, and write it to ``output`` as PNG and WebP."""
    cells = [[(row.folder / f"{column.name}.png", row.parameters.get(column.name, "")) for column in columns] for row in rows]
    return write_cells(output, name, [row.label for row in rows], columns, cells, title=title, scale=scale)


def write_cells(
    output: Path,
    name: str,
    rows: Sequence[str],
    columns: Sequence[GridColumn],
    cells: Sequence[Sequence[tuple[Path, str]]],
    *,
    title: str = "",
    scale: int = 1,
) -> list[Path]:
    """Draw a grid of any images (see ``draw``) and write it like ``write``."""
    image, parameters = draw(rows, columns, cells, title, scale)
    return save_both(image, output, name, texts(rows, columns, title, parameters))


def parse(rows: Sequence[str], columns: Sequence[str] = ()) -> tuple[list[GridRow], list[GridColumn]]:
    """Return rows of LABEL=FOLDER and columns of NAME=LABEL.

    The default columns are the images of the first folder.

    Raises:
        RecipeError: a row without a folder, or no image.
    """
    parsed: list[GridRow] = []
    problems: list[Problem] = []
    for text in rows:
        label, equals, folder = text.rpartition("=")
        parsed.append(GridRow(label if equals else Path(text).name, Path(folder)))
        if not Path(folder).is_dir():
            problems.append(Problem(f"--row {text}", f"{folder} is not a folder", "LABEL=FOLDER, the folder with NAME.png"))
    if problems or not parsed:
        raise RecipeError(problems or Problem("--row", "is missing", "LABEL=FOLDER, once a row"))
    pairs = [text.partition("=") for text in columns]
    heads = [GridColumn(name, label or name) for name, _, label in pairs]
    heads = heads or [GridColumn(path.stem, path.stem) for path in sorted(parsed[0].folder.glob("*.png"))]
    if not heads:
        raise RecipeError(Problem(str(parsed[0].folder), "holds no PNG image", "--row LABEL=FOLDER"))
    return parsed, heads


def main(argv: list[str]) -> int:
    """Run one request and return the exit code.

    A row may hold A1111's texts, or the recipe of its images.
    """
    path = Path(argv[0] if argv else REQUEST)
    try:
        request = read_request(path)
        require(request, ("output", "name", "rows", "columns"), path)
        rows = [GridRow(str(row["label"]), Path(row["folder"]), _parameters(row, f"{path}: rows")) for row in request["rows"]]
        columns = [GridColumn(c["name"], c.get("label") or c["name"], c.get("prompt", "")) for c in request["columns"]]
        output = Path(request["output"])
        output.mkdir(parents=True, exist_ok=True)
        title, scale = request.get("title", ""), int(request.get("scale", 1))
        files = write(output, request["name"], rows, columns, title=title, scale=scale)
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print_progress(1, 1, ", ".join(file.name for file in files))
    return 0


def _parameters(row: dict[str, Any], where: str) -> Mapping[str, str]:
    if "recipe" in row:
        return parameters_by_prompt(read_recipe(row["recipe"], where))
    return dict(row.get("parameters", {}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
