"""The page and its images, as a browser reads them."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from PIL import Image

import made_runs
from orchestrator import report
from orchestrator.report import collect, page
from report_store import NAMES, Page, broken_runs, loaded, plan

if TYPE_CHECKING:
    from pathlib import Path


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
        assert anchor.removeprefix("#") in parsed.ids


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
