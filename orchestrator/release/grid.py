"""Program: pictures in folders -> one labelled grid, as PNG and WebP. ``python -m orchestrator.release.grid request.json``.

Rows and columns can be anything: algorithms by prompts, sv_ratios by prompts, multipliers by block weights. The same
pictures and labels give the same bytes; no date is written. What each picture was made from (A1111's ``parameters`` text)
stands in the grid's own PNG text.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, PngImagePlugin

from orchestrator.errors import OrchestratorError, Problem, RecipeError, StepFailed
from orchestrator.release.text_layout import layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.release.text_layout import Text

PRELOAD = ("PIL.Image", "PIL.ImageDraw", "PIL.ImageFont", "PIL.PngImagePlugin", "PIL.WebPImagePlugin")

WEBP_SIDE = 16383  # the format's limit, in pixels
_GAP, _PAPER, _INK = 8, (255, 255, 255), (30, 32, 38)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its label, the folder that holds NAME.png for every column, and how each was made, by the column's name."""

    label: str
    folder: Path
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the name of its pictures, its label, and the prompt they were drawn from."""

    name: str
    label: str
    prompt: str = ""


def _open(path: Path) -> tuple[Image.Image, str]:
    """Return a picture on white, and the text that says how it was made."""
    with Image.open(path) as file:
        said = str(file.info.get("parameters", ""))
        picture = file.convert("RGBA")
    paper = Image.new("RGBA", picture.size, (*_PAPER, 255))
    return Image.alpha_composite(paper, picture).convert("RGB"), said


def draw(
    rows: Sequence[str],
    columns: Sequence[Column],
    cells: Sequence[Sequence[tuple[Path, str]]],
    title: str = "",
    scale: int = 1,
) -> tuple[Image.Image, dict[str, str]]:
    """Return the grid of rows by columns and, by "row / column", what each picture says of how it was made.

    Args:
        rows: the labels of the rows.
        columns: names and labels.
        cells: by row and column, a picture and how it was made (A1111's text), for those that do not say it themselves.
        title: stands above; may be empty.
        scale: whole factor by which every picture is enlarged.

    Raises:
        StepFailed: every picture that is missing or cannot be read.
    """
    pictures: list[list[Image.Image]] = []
    made: dict[str, str] = {}
    problems: list[Problem] = []
    for row, paths in zip(rows, cells, strict=True):
        line: list[Image.Image] = []
        for column, (path, otherwise) in zip(columns, paths, strict=True):
            try:
                picture, said = _open(path)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                problems.append(Problem(str(path), f"cannot be read: {error}", "run the render step again"))
                continue
            if scale > 1:
                picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)
            if said or otherwise:
                made[f"{row} / {column.label}"] = said or otherwise
            line.append(picture)
        pictures.append(line)
    if problems:
        raise StepFailed(problems)
    return compose(rows, columns, title, pictures), made


def compose(rows: Sequence[str], columns: Sequence[Column], title: str, pictures: list[list[Image.Image]]) -> Image.Image:
    """Return the grid of ``pictures[row][column]`` with the rows' labels, the columns' labels and a title."""
    widths = [max(line[index].width for line in pictures) for index in range(len(columns))]
    heights = [max(picture.height for picture in line) for line in pictures]
    size = min(28, max(13, min(widths) // 12))
    heads = [layout(column.label, width - 4, size) for column, width in zip(columns, widths, strict=True)]
    room = min(max(96, max(widths) * 2 // 3), 280)
    sides = [layout(row, room, size, most=max(1, height // size // 2)) for row, height in zip(rows, heights, strict=True)]
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
    for text, line, tall in zip(sides, pictures, heights, strict=True):
        _write(pen, text, (_GAP, y + (tall - text.height) // 2), _INK)
        x = left
        for picture, width in zip(line, widths, strict=True):
            canvas.paste(picture, (x + (width - picture.width) // 2, y + (tall - picture.height) // 2))
            x += width + _GAP
        y += tall + _GAP
    return canvas


def _write(
    pen: ImageDraw.ImageDraw, text: Text, at: tuple[int, int], ink: tuple[int, int, int], *, centre: bool = False
) -> None:
    for number, line in enumerate(text.lines):
        x = at[0] - round(text.font.getlength(line) / 2) if centre else at[0]
        pen.text((x, at[1] + number * text.line_height), line, ink, font=text.font)


def save(picture: Image.Image, path: Path, texts: dict[str, str]) -> None:
    """Write a PNG with ``texts`` (empty ones are left out), by rename; the same picture and texts give the same bytes."""
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        if text:
            info.add_itxt(name, text) if not text.isascii() else info.add_text(name, text)
    draft = path.with_name(f".{path.name}.part")
    picture.save(draft, "PNG", pnginfo=info, compress_level=6)
    draft.replace(path)


def save_webp(picture: Image.Image, path: Path, quality: int = 90) -> None:
    """Write a WebP, by rename; smaller than the format's limit of 16383 pixels a side."""
    if max(picture.size) > WEBP_SIDE:
        factor = WEBP_SIDE / max(picture.size)
        picture = picture.resize((int(picture.width * factor), int(picture.height * factor)), Image.Resampling.LANCZOS)
    draft = path.with_name(f".{path.name}.part")
    picture.save(draft, "WEBP", quality=quality, method=4)
    draft.replace(path)


def texts(rows: Sequence[str], columns: Sequence[Column], title: str, made: dict[str, str]) -> dict[str, str]:
    """Return the grid's PNG texts: A1111's ``parameters`` of its first picture, what stands where, and those of all."""
    plan = {"rows": list(rows), "columns": [{"label": column.label, "prompt": column.prompt} for column in columns]}
    found = {"parameters": next(iter(made.values()), ""), "Title": title, "Grid": json.dumps(plan, ensure_ascii=False)}
    return found | {"Pictures": json.dumps(made, ensure_ascii=False) if made else ""}


def save_both(picture: Image.Image, output: Path, name: str, said: dict[str, str]) -> list[Path]:
    """Write NAME_grid.png with its texts and NAME_grid.webp; return both paths."""
    files = [output / f"{name}_grid.png", output / f"{name}_grid.webp"]
    save(picture, files[0], said)
    save_webp(picture, files[1])
    return files


def write(
    output: Path, name: str, rows: Sequence[Row], columns: Sequence[Column], *, title: str = "", scale: int = 1
) -> list[Path]:
    """Draw a grid of folders and write NAME_grid.png and NAME_grid.webp into ``output``; return both paths."""
    cells = [[(row.folder / f"{column.name}.png", row.parameters.get(column.name, "")) for column in columns] for row in rows]
    return write_cells(output, name, [row.label for row in rows], columns, cells, title=title, scale=scale)


def write_cells(
    output: Path,
    name: str,
    rows: Sequence[str],
    columns: Sequence[Column],
    cells: Sequence[Sequence[tuple[Path, str]]],
    *,
    title: str = "",
    scale: int = 1,
) -> list[Path]:
    """Draw a grid of pictures that lie anywhere (see ``draw``) and write it as ``write`` does."""
    picture, made = draw(rows, columns, cells, title, scale)
    return save_both(picture, output, name, texts(rows, columns, title, made))


def parse(rows: Sequence[str], columns: Sequence[str] = ()) -> tuple[list[Row], list[Column]]:
    """Read LABEL=FOLDER and NAME=LABEL as the command line takes them; without columns, all pictures of the first folder.

    Raises:
        RecipeError: a row without a folder, or no picture anywhere.
    """
    found: list[Row] = []
    problems: list[Problem] = []
    for text in rows:
        label, equals, folder = text.rpartition("=")
        found.append(Row(label if equals else Path(text).name, Path(folder)))
        if not Path(folder).is_dir():
            problems.append(Problem(f"--row {text}", f"{folder} is no folder", "LABEL=FOLDER, the folder with NAME.png"))
    if problems or not found:
        raise RecipeError(problems or Problem("--row", "is missing", "LABEL=FOLDER, once a row"))
    pairs = [text.partition("=") for text in columns]
    heads = [Column(name, label or name) for name, _, label in pairs]
    heads = heads or [Column(path.stem, path.stem) for path in sorted(found[0].folder.glob("*.png"))]
    if not heads:
        raise RecipeError(Problem(str(found[0].folder), "holds no PNG picture", "--row LABEL=FOLDER"))
    return found, heads


def _read(path: Path) -> dict[str, Any]:
    try:
        request = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(Problem(str(path), f"is no request: {error}")) from error
    missing = (
        [key for key in ("output", "name", "rows", "columns") if not request.get(key)] if isinstance(request, dict) else []
    )
    if missing or not isinstance(request, dict):
        raise RecipeError(
            [Problem(f"{path}: {key}", "is missing or empty") for key in missing] or Problem(str(path), "is no object")
        )
    return request


def main(argv: list[str]) -> int:
    """Run one request and return the exit code."""
    try:
        request = _read(Path(argv[0] if argv else "request.json"))
        rows = [Row(str(row["label"]), Path(row["folder"]), row.get("parameters", {})) for row in request["rows"]]
        columns = [Column(c["name"], c.get("label") or c["name"], c.get("prompt", "")) for c in request["columns"]]
        output = Path(request["output"])
        output.mkdir(parents=True, exist_ok=True)
        files = write(
            output, request["name"], rows, columns, title=request.get("title", ""), scale=int(request.get("scale", 1))
        )
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    note = ", ".join(file.name for file in files)
    print("PROGRESS " + json.dumps({"done": 1, "total": 1, "note": note}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
