"""The page and its images, as a browser reads them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

import made_runs
from orchestrator import report
from orchestrator.report import collect, page, tables
from report_store import NAMES, Page, broken_runs, loaded, plan


def test_every_image_is_beside_the_page_and_no_url_leads_outside(runs: Path, html: str) -> None:
    parsed = Page(html)
    assert len(parsed.urls) > 30
    for url in parsed.urls:
        if url == "data:,":
            continue
        assert re.fullmatch(r"img/[0-9a-f]{20}\.webp", url), url
        with Image.open(runs / "report" / url) as picture:
            assert min(picture.size) >= 1
    outside = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", html.replace("http://www.w3.org/2000/svg", ""))
    assert outside == []


def test_images_have_texts_and_ids_are_unique(html: str) -> None:
    parsed = Page(html)
    assert all("alt" in image for image in parsed.images)
    assert len(set(parsed.ids)) == len(parsed.ids)
    for anchor in parsed.anchors:
        if anchor.startswith("#"):
            assert anchor.removeprefix("#") in parsed.ids


def test_files_and_logs_of_every_step_are_linked(runs: Path, html: str) -> None:
    """Links are relative, so that a moved store keeps them."""
    links = [anchor for anchor in Page(html).anchors if not anchor.startswith("#")]
    files = [(runs / "report" / unquote(link)).resolve() for link in links]
    assert all(file.exists() for file in files)
    assert made_runs.folder(runs, "krnk-locon/train").resolve() in files
    for name in ("progress.jsonl", "record.json", "krnk-locon.safetensors"):
        assert (made_runs.folder(runs, "krnk-locon/train") / name).resolve() in files


def test_a_failed_training_shows_its_log(tmp_path: Path) -> None:
    work = broken_runs(tmp_path, 1)
    html = report.write(tmp_path, loaded(), tmp_path / "report" / "index.html").read_text("utf-8")
    assert f'<a href="../krnk-locon/.partial/{work.name}/log.txt">log.txt</a>' in html
    served = report.write(tmp_path, loaded(), tmp_path / "report" / "index.html", live=True).read_text("utf-8")
    assert "<code>log.txt</code>" in served  # the server has no files of the store
    assert 'href="../' not in served


def _renamed(name: str, new: str) -> Any:
    each = made_runs.loaded(name)
    return dataclasses.replace(each, recipe=each.recipe.model_copy(update={"name": new}))


def test_two_recipes_of_one_algorithm_are_distinguished(tmp_path: Path) -> None:
    recipes = [made_runs.loaded("krnk-locon"), _renamed("krnk-locon", "krnk-locon-dim8"), made_runs.loaded("krnk-loha")]
    for each in recipes:
        made_runs.train(tmp_path, each.recipe)
        made_runs.render(tmp_path, each.recipe)
    values = page.context(collect.collect(tmp_path, recipes), tmp_path / "img")
    (subject,) = values["subjects"]
    assert [key["label"] for key in subject["loss_keys"]] == ["krnk-locon", "krnk-locon-dim8", "loha"]
    assert len({key["look"] for key in subject["loss_keys"]}) == 3
    assert set(subject["compare"]["rows"]) == {"krnk-locon", "krnk-locon-dim8", "loha"}


def test_24_recipes_in_a_row_have_different_looks(tmp_path: Path) -> None:
    recipes = [_renamed("krnk-locon", f"krnk-{number}") for number in range(24)]
    values = page.context(collect.collect(tmp_path, recipes), tmp_path / "img")
    looks = {member["look"] for member in values["subjects"][0]["members"]}
    assert len(looks) == 24
    style = (Path(page.__file__).parent / "templates" / "page.css").read_text("utf-8")
    for name in {name for look in looks for name in look.split()} - {"d0"}:
        assert f".{name} " in style


def _contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        return float(np.dot(_linear(colour), (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _linear(colour: str) -> Any:
    value = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _oklab(linear: Any) -> Any:
    to_cones = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    to_lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(linear, 0, 1))


READERS = {  # Machado et al. 2009, severity 1
    "all three cones": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


@pytest.mark.parametrize("reader", READERS)
def test_colours_of_curves_differ_for_every_reader(reader: str) -> None:
    style = (Path(page.__file__).parent / "templates" / "page.css").read_text("utf-8")
    _, *parts = style.split("--paper:")
    themes = [dict(re.findall(r"--(a\d|card): (#[0-9a-f]{6});", part)) for part in parts]
    assert len(themes) == 3
    for theme in themes:
        card = theme.pop("card")
        assert len(theme) == 6
        seen = [_oklab(np.array(READERS[reader]) @ _linear(colour)) for colour in theme.values()]
        assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 0.1
        assert min(_contrast(colour, card) for colour in theme.values()) >= 3


def test_wall_time_counts_parallel_steps_once_and_no_pauses(tmp_path: Path) -> None:
    def step(started: float, seconds: float) -> collect.StepView:
        values = {"started": started, "seconds": seconds}
        return collect.StepView("a/train", "train", collect.State.DONE, "", tmp_path, values, (), 1, 1, "")

    assert tables.wall([]) == 0
    assert tables.wall([step(0, 100), step(50, 100), step(60, 10)]) == 150
    assert tables.wall([step(0, 100), step(160, 40)]) == 200  # a short wait for the next model
    assert tables.wall([step(0, 100), step(90_000, 40)]) == 140


def test_dashed_lines_have_a_key(html: str) -> None:
    figure = html.partition('<figure id="loss-krnk-locon">')[2].partition("</figure>")[0]
    keys = re.findall(r'<path class="curve ([^"]+)"[^>]*/></svg>([^<]+)<', figure)
    assert keys == [
        ("a1 dashed", "held-out images"),
        ("a1", "mean"),
        ("a1 faint", "this step"),
        ("a1", "U-Net"),
        ("a1 dashed", "text encoder"),
    ]
    for look, label in keys:
        assert f'"label":"{label}"' in unescape(figure)
        assert f'class="curve {look}" points=' in figure


def test_the_page_shows_state_curves_sizes_blocks_and_commands(html: str) -> None:
    text = " ".join(Page(html).words)
    for name in NAMES:
        assert f'id="r-{name}"' in html
        assert f"Mean loss of {name}: from" in html
        assert f"Learning rate of {name}: from" in html
    for word in (
        "predicted",
        "trained",
        "compressed",
        "released",
        "listed",
        "norm, merged",
        "rank, compressed",
        "from behind",
    ):
        assert word in text
    assert "297.0 MiB" in text  # what the plan predicts
    assert "40.0 MiB" in text  # what the earlier card lists
    assert "python -m orchestrator.train" in text
    assert "Singular values of krnk-lora3x3, compressed" in html


def test_the_page_shows_the_trainers_images(runs: Path, html: str) -> None:
    """The dataset's contact sheet shows pictures, coverage and tags.

    Pictures are grouped by bucket, with caption. Their tiles lie in one file.
    """
    addresses = re.findall(r'class="contact" style="--sheet-0:url\((img/[0-9a-f]{20}\.webp)\);"', html)
    assert len(addresses) == 1
    with Image.open(runs / "report" / addresses[0]) as sheet:
        assert sheet.size == (6 * 96, 96)
    words = " ".join(Page(html).words)
    assert "num epochs of krnk-loha 84" in words
    assert "krnk, upper body: images by height and direction" in words
    assert "krnk, simple background, white background, from above, from front" in words
    assert len(re.findall(r'<i role="img" aria-label="f\d0.png"', html)) == 6


def test_the_slider_has_the_images_of_every_algorithm(html: str) -> None:
    (values,) = (json.loads(text) for text in re.findall(r"data-compare='([^']*)'", html))
    assert set(values["rows"]) == {"lora3x3", "locon", "loha"}
    for row in values["rows"].values():
        assert set(row) == set(values["prompts"]) == set(made_runs.loaded("krnk-locon").recipe.render.prompts)


def test_an_empty_store_gives_a_page_too(tmp_path: Path) -> None:
    out = report.write(tmp_path / "runs", loaded(), tmp_path / "page.html")
    text = " ".join(Page(out.read_text("utf-8")).words)
    assert "3 waiting" in text
    assert not (tmp_path / "runs").exists()


def test_the_timeline_shows_the_newest_run_by_lane(tmp_path: Path) -> None:
    def step(name: str, started: float, slot: str, waited: float = 0.0) -> collect.StepView:
        folder = made_runs.folder(tmp_path, name)
        when: dict[str, Any] = {"lane": slot.partition(" ")[0], "slot": slot, "started": started, "waited": waited}
        recorded = made_runs.record(folder, name, "train", {}, seconds=100.0, **when)
        return collect.StepView(name, "train", collect.State.DONE, "", folder, recorded, (), 1, 1, "")

    drawn = page.timeline(
        [step("old/train", 1000.0, "gpu 0"), step("a/train", 9000.0, "gpu 0"), step("b/train", 9100.0, "cpu 0", waited=60.0)]
    )
    assert "2 steps over 3 min, by lane: gpu 0 busy for 50%, cpu 0 busy for 50%" in drawn
    assert "b/train: 2 min, waited 60 s" in drawn
    assert "old/train" not in drawn
    assert page.timeline([]) == ""


def test_texts_from_files_cannot_become_markup(tmp_path: Path) -> None:
    name = "krnk-locon"
    each = made_runs.loaded(name)
    release = each.recipe.release.model_copy(update={"title": "<script>alert(1)</script>", "description": '"><img src=x>'})
    hostile = dataclasses.replace(each, recipe=each.recipe.model_copy(update={"release": release}))
    text = report.write(tmp_path, [hostile], tmp_path / "page.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert "<img src=x>" not in text


def test_samples_are_in_step_order(tmp_path: Path) -> None:
    work = broken_runs(tmp_path, None)
    for name in (
        "krnk-locon_000040_00_20260101_1.png",
        "krnk-locon_000020_01_20260101_1.png",
        "krnk-locon_000020_00_20260101_1.png",
    ):
        made_runs.picture(work / "sample" / name, "krnk", 1, 64)
    values = page.context(collect.collect(tmp_path, loaded(), plan(tmp_path)), tmp_path / "img")
    samples = values["subjects"][0]["members"][1]["samples"]
    rows = {row["label"]: [entry["label"] for entry in row["pictures"]] for row in samples}
    assert rows == {"from front": ["step 20", "step 40"], "from side": ["step 20"]}
