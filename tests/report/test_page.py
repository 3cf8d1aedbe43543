from __future__ import annotations

import http.client
import json
import os
import re
import threading
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

import made_runs
from orchestrator import report
from orchestrator.errors import Problem, RecipeError
from orchestrator.release.block_stats import main as measure
from orchestrator.report import charts, collect, commands, live, page, tables
from orchestrator.system import supervisor
from orchestrator.weights.families import block_stats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ["krnk-lora3x3", "krnk-locon", "krnk-loha"]


def loaded() -> list[Any]:
    return [made_runs.loaded(name) for name in NAMES]


def plan(runs: Path) -> dict[str, Any]:
    whole = made_runs.plan_json(runs)
    shared = [step for step in whole["shared"] if step["name"] == "krnk/grid"]
    return {"recipes": [entry for entry in whole["recipes"] if entry["name"] in NAMES], "shared": shared}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    made_runs.collection(root, NAMES)
    report.write(root, loaded(), root / "report" / "index.html", plan=plan(root))
    return root


@pytest.fixture(scope="module")
def html(runs: Path) -> str:
    return (runs / "report" / "index.html").read_text("utf-8")


class Page(HTMLParser):
    """Collects what a browser would ask for, the ids, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "img":
            self.images.append(said)
        self.urls += [value for key, value in attrs if key in ("src", "data-full", "poster", "action") and value]
        if tag in ("link", "script") and said.get("href"):
            self.urls.append(str(said["href"]))
        if tag == "a":
            self.anchors.append(str(said.get("href")))
        if said.get("id"):
            self.ids.append(str(said["id"]))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_picture_lies_beside_the_page_and_nothing_is_asked_of_a_network(runs: Path, html: str) -> None:
    found = Page(html)
    assert len(found.urls) > 30
    for url in found.urls:
        if url == "data:,":
            continue
        assert re.fullmatch(r"img/[0-9a-f]{20}\.webp", url), url
        with Image.open(runs / "report" / url) as picture:
            assert min(picture.size) >= 1
    outside = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", html.replace("http://www.w3.org/2000/svg", ""))
    assert outside == []


def test_pictures_have_words_and_ids_are_unique(html: str) -> None:
    found = Page(html)
    assert all("alt" in image for image in found.images)
    assert len(set(found.ids)) == len(found.ids)
    for anchor in found.anchors:
        assert anchor.removeprefix("#") in found.ids


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


def test_the_page_shows_what_the_trainer_saw(runs: Path, html: str) -> None:
    """The dataset's contact sheet: every picture by bucket, with caption; coverage; tags. Its tiles lie in one file."""
    addresses = re.findall(r'class="contact" style="--sheet-0:url\((img/[0-9a-f]{20}\.webp)\);"', html)
    assert len(addresses) == 1
    with Image.open(runs / "report" / addresses[0]) as sheet:
        assert sheet.size == (6 * 96, 96)
    words = " ".join(Page(html).words)
    assert "num epochs of krnk-loha 84" in words
    assert "krnk, upper body: images by height and direction" in words
    assert "krnk, simple background, white background, from above, from front" in words
    assert len(re.findall(r'<i role="img" aria-label="f\d0.png"', html)) == 6


def test_the_commands_of_weight_surgery_are_verbs_that_anybody_can_call(runs: Path) -> None:
    found = collect.collect(runs, loaded(), plan(runs))
    member = next(member for member in found.members if member.recipe.name == "krnk-lora3x3")
    said = {entry["name"]: entry["text"] for entry in commands.commands(runs, member)}
    merge, resize = (said[f"krnk-lora3x3/{kind}"].split() for kind in ("merge", "resize"))
    assert merge[:4] == ["python", "-m", "orchestrator", "merge"]
    assert merge[-2:] == ["--block-weights", "FACE"]
    assert (runs.parent / resize[4]).is_file()
    assert "/merge-" in resize[4]
    assert resize[6:8] == ["--sv-ratio", "16"]
    assert "--rank-rule 2023" in said["krnk-lora3x3/resize"]
    assert said["krnk-lora3x3/train"].startswith("python -m orchestrator.train")
    assert not any(str(runs.parent) in text or ".partial" in text for text in said.values())


def test_the_slider_knows_the_pictures_of_every_algorithm(html: str) -> None:
    (said,) = (json.loads(text) for text in re.findall(r"data-compare='([^']*)'", html))
    assert set(said["rows"]) == {"lora3x3", "locon", "loha"}
    for row in said["rows"].values():
        assert set(row) == set(said["prompts"]) == set(made_runs.loaded("krnk-locon").recipe.render.prompts)


def test_blocks_show_what_the_merge_took_away(runs: Path) -> None:
    found = collect.collect(runs, loaded(), plan(runs))
    member = next(member for member in found.members if member.recipe.name == "krnk-locon")
    from orchestrator.report import block_stats as measured  # noqa: PLC0415

    stages = measured.stages(runs, member)
    assert stages["train"]["BASE"]["norm"] > 0
    assert stages["merge"]["BASE"]["norm"] == 0
    assert stages["merge"]["IN01"]["norm"] == pytest.approx(stages["train"]["IN01"]["norm"])
    rows = {
        row["label"]: {cell["block"]: cell for cell in row["cells"]}
        for row in tables.heat(member, made_names(), stages)["rows"]
    }
    assert rows["weights"]["BASE"]["text"] == "0"
    assert rows["weights"]["IN01"]["shade"] == 1
    assert rows["norm, merged"]["BASE"]["shade"] == 0


def made_names() -> tuple[str, ...]:
    from orchestrator.models import blocks  # noqa: PLC0415

    return blocks.names("sd1")


def test_spectra_fall_and_begin_at_the_largest(tmp_path: Path) -> None:
    recipe = made_runs.loaded("krnk-lora3x3").recipe
    said = block_stats.spectra(made_runs.lora(tmp_path / "x.safetensors", recipe, rank=8))
    for block in said.values():
        assert block["spectrum"][0] == 0
        assert block["spectrum"] == sorted(block["spectrum"], reverse=True)
        assert block["ranks"] == [8, 8, 8]


def test_a_release_brings_its_measures_so_that_a_report_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.report import block_stats as measured  # noqa: PLC0415
    from orchestrator.system import process  # noqa: PLC0415

    made_runs.released(tmp_path, "krnk-lora3x3")
    found = collect.collect(tmp_path, loaded(), made_runs.plan_json(tmp_path))
    monkeypatch.setattr(process, "capture", lambda *_: pytest.fail("a child was started"))
    measured.complete(tmp_path, found)
    member = next(member for member in found.members if member.recipe.name == "krnk-lora3x3")
    stages = measured.stages(tmp_path, member)
    assert stages["train"]["IN01"]["ranks"] == [4, 4, 4]
    assert stages["resize"]["IN01"]["ranks"] == [2, 2, 2]
    assert stages["resize"]["BASE"]["norm"] == 0


def test_what_cannot_be_measured_says_why_and_the_others_are_measured(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    good = made_runs.lora(tmp_path / "x.safetensors", made_runs.loaded("krnk-locon").recipe)
    wanted = [[str(tmp_path / "broken.safetensors"), str(tmp_path / "a.json")], [str(good), str(tmp_path / "b.json")]]
    (tmp_path / "request.json").write_text(json.dumps(wanted), "utf-8")
    assert measure([str(tmp_path / "request.json")]) == 0
    assert "header" in json.loads((tmp_path / "a.json").read_text("utf-8"))["error"]
    assert json.loads((tmp_path / "b.json").read_text("utf-8"))["blocks"]["BASE"]["modules"] == 1


def test_an_empty_store_gives_a_page_too(tmp_path: Path) -> None:
    out = report.write(tmp_path / "runs", loaded(), tmp_path / "page.html")
    text = " ".join(Page(out.read_text("utf-8")).words)
    assert "3 waiting" in text
    assert not (tmp_path / "runs").exists()


def test_without_a_plan_the_newest_records_count(runs: Path) -> None:
    found = collect.collect(runs, loaded())
    assert {str(member.state) for member in found.members} == {"done"}
    assert [step.name for step in found.shared] == ["krnk/grid"]


def test_other_keys_are_other_work(runs: Path, tmp_path: Path) -> None:
    said = plan(runs)
    for entry in said["recipes"]:
        for step in entry["steps"]:
            step["key"] = "f" * 64
    found = collect.collect(runs, loaded(), said)
    assert {str(member.state) for member in found.members} == {"outdated"}
    assert not any(step.state is collect.State.DONE for step in found.members[0].steps.values())
    text = " ".join(Page(report.write(runs, loaded(), tmp_path / "page.html", plan=said).read_text("utf-8")).words)
    assert "3 outdated" in text
    assert found.members[0].curve
    assert {str(member.state) for member in collect.collect(tmp_path, loaded(), said).members} == {"waiting"}


def test_the_lanes_show_the_newest_run_by_place(tmp_path: Path) -> None:
    def step(name: str, started: float, slot: str, waited: float = 0.0) -> collect.StepView:
        folder = made_runs.folder(tmp_path, name)
        when: dict[str, Any] = {"lane": slot.partition(" ")[0], "slot": slot, "started": started, "waited": waited}
        said = made_runs.record(folder, name, "train", {}, seconds=100.0, **when)
        return collect.StepView(name, "train", collect.State.DONE, "", folder, said, (), 1, 1, "")

    drawn = page.timeline(
        [step("old/train", 1000.0, "gpu 0"), step("a/train", 9000.0, "gpu 0"), step("b/train", 9100.0, "cpu 0", waited=60.0)]
    )
    assert "2 steps over 3 min, by lane: gpu 0 busy for 50%, cpu 0 busy for 50%" in drawn
    assert "b/train: 2 min, waited 60 s" in drawn
    assert "old/train" not in drawn
    assert page.timeline([]) == ""


def broken_runs(tmp_path: Path, code: int | None) -> Path:
    """Return a store in which the training of krnk-locon has begun, and has ended with ``code`` if there is one."""
    work = tmp_path / "krnk-locon" / ".partial" / f"train-{made_runs.key('krnk-locon/train')[:12]}"
    work.mkdir(parents=True)
    lines = [{"t": 1, "done": n, "total": 100, "loss": 0.1, "lr": 1e-4, "note": ""} for n in range(1, 41)]
    (work / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"t": 2, "do', "utf-8")
    (work / "log.txt").write_text("loading\rstep 1\rstep 2\n<b>RuntimeError</b>: no memory\n", "utf-8")
    if code is not None:
        (work / "exit.json").write_text(json.dumps({"code": code}), "utf-8")
    return work


@pytest.mark.parametrize(("code", "state"), [(1, "failed"), (-9, "failed"), (None, "unfinished")])
def test_unfinished_work_is_shown_with_how_far_it_came(tmp_path: Path, code: int | None, state: str) -> None:
    broken_runs(tmp_path, code)
    found = collect.collect(tmp_path, loaded(), plan(tmp_path))
    step = next(step for step in found.steps() if step.name == "krnk-locon/train")
    assert str(step.state) == state
    assert (step.done, step.total) == (40, 100)
    assert len(step.curve) == 40
    text = report.write(tmp_path, loaded(), tmp_path / "page.html", plan=plan(tmp_path)).read_text("utf-8")
    if state == "failed":
        assert "&lt;b&gt;RuntimeError&lt;/b&gt;: no memory" in text
    assert "<b>RuntimeError" not in text


def test_a_finished_training_that_is_made_again_runs(tmp_path: Path) -> None:
    work = broken_runs(tmp_path, None)
    folder = made_runs.folder(tmp_path, "krnk-locon/train")
    made_runs.record(folder, "krnk-locon/train", "train", {}, seconds=100.0)
    steps = {step.name: step for step in collect.collect(tmp_path, loaded(), plan(tmp_path)).steps()}
    assert steps["krnk-locon/train"].state is collect.State.DONE
    child = {"pid": os.getpid(), "supervisor": os.getpid(), "supervisor_started": supervisor.started(os.getpid()), "at": 1.0}
    (work / supervisor.CHILD).write_text(json.dumps(child), "utf-8")
    steps = {step.name: step for step in collect.collect(tmp_path, loaded(), plan(tmp_path)).steps()}
    assert steps["krnk-locon/train"].state is collect.State.RUNNING
    assert (steps["krnk-locon/train"].done, steps["krnk-locon/train"].total) == (40, 100)


def test_texts_from_files_cannot_become_markup(tmp_path: Path) -> None:
    name = "krnk-locon"
    each = made_runs.loaded(name)
    release = each.recipe.release.model_copy(update={"title": "<script>alert(1)</script>", "description": '"><img src=x>'})
    import dataclasses  # noqa: PLC0415

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
    said = page.context(collect.collect(tmp_path, loaded(), plan(tmp_path)), tmp_path / "img")
    samples = said["subjects"][0]["members"][1]["samples"]
    rows = {row["label"]: [entry["label"] for entry in row["pictures"]] for row in samples}
    assert rows == {"from front": ["step 20", "step 40"], "from side": ["step 20"]}


def test_a_resumed_curve_has_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    steps = [*range(1, 31), *range(21, 41)]
    path.write_text("".join(json.dumps({"done": n, "total": 40, "loss": 1 / n, "lr": None}) + "\n" for n in steps), "utf-8")
    assert [point.step for point in collect.read_curve(path)] == list(range(1, 41))


def test_long_curves_keep_their_ends_and_extremes() -> None:
    points = [collect.Point(n, 0.1 + (5.0 if n == 5003 else 0.0), 1e-4) for n in range(10000)]
    kept = collect.thinned(points)
    assert len(kept) <= collect.POINTS + 2
    assert (kept[0].step, kept[-1].step) == (0, 9999)
    assert max(point.loss or 0 for point in kept) == 5.1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 1000, [0, 250, 500, 750, 1000]), (5, 5, [5]), (0.08, 0.19, [0.1, 0.15])],
)
def test_axes_have_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


BAR = {"name": "<a>", "kind": "train", "waited": 0.0}


def test_charts_are_well_formed_and_stay_in_their_box() -> None:
    import xml.etree.ElementTree as ET  # noqa: PLC0415 - our own text

    chart = charts.lines([charts.Line("a<b", "a0", [(1, 0.5), (2, 0.1), (3, 0.3)])], 'says "so"')
    tree = ET.fromstring(chart)  # noqa: S314
    _, _, width, height = (float(part) for part in tree.attrib["viewBox"].split())
    for part in tree.iter("polyline"):
        for pair in part.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert tree.attrib["aria-label"] == 'says "so"'
    for empty in (charts.lines([], "x"), charts.timeline([], "x"), charts.spectra([], "x"), charts.spark([], "a0")):
        assert empty == ""
    for single in (
        charts.lines([charts.Line("a", "a0", [(1, 0.0)])], "x"),
        charts.timeline([{"name": "c", "busy": 1.0, "bars": [dict(BAR, start=0.0, seconds=0.0)]}], 'says "so"'),
    ):
        ET.fromstring(single)  # noqa: S314


def test_times_and_sizes_read_well() -> None:
    assert [charts.clock(value) for value in (0, 0.7, 45, 125, 12000)] == ["0 s", "0.7 s", "45 s", "2 min", "3 h 20 min"]
    assert [tables.size(value) for value in (12, 2048, 212845244, 3 * 2**30)] == ["12 B", "2.0 KiB", "203.0 MiB", "3.0 GiB"]


# -- live


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    broken_runs(tmp_path, 1)
    write = live.writer(tmp_path, lambda: (loaded(), plan(tmp_path)))
    with live.server(write, tmp_path / "page") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, tmp_path
        server.shutdown()
        thread.join()


def ask(port: int, path: str, host: str = "") -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data, {name.title(): value for name, value in answer.getheaders()}


def test_the_live_page_reads_recipes_again_when_they_change(tmp_path: Path) -> None:
    recipes, page_ = loaded(), tmp_path / "page" / "index.html"

    def read() -> live.Read:
        if not recipes:
            raise RecipeError(Problem("a.toml", "is wrong"))
        return list(recipes), {}

    write = live.writer(tmp_path / "runs", read)
    write(page_)
    assert "krnk-locon" in page_.read_text("utf-8")
    every = recipes.copy()
    recipes.clear()  # a mistake: the page stays as it was
    write(page_)
    assert "krnk-locon" in page_.read_text("utf-8")
    recipes.append(every[0])
    write(page_)
    assert "krnk-lora3x3" in page_.read_text("utf-8")
    assert "krnk-locon" not in page_.read_text("utf-8")


def test_the_live_page_follows_the_files(serving: tuple[int, Path]) -> None:
    port, root = serving
    status, data, headers = ask(port, "/")
    assert status == 200
    assert b'data-live="1"' in data
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"40 of 100" in data
    path = next(root.glob("krnk-locon/.partial/train-*")) / "progress.jsonl"
    with path.open("a") as file:
        file.write("\n" + json.dumps({"done": 55, "total": 100, "loss": 0.05, "lr": 1e-4}) + "\n")
    data = ask(port, "/")[1]
    assert b"55 of 100" in data
    assert b"now 0.0500" in data
    assert re.findall(rb'src="(img/[0-9a-f]+\.webp)"', data) == []
    made_runs.render(root, made_runs.loaded("krnk-loha").recipe)
    urls = re.findall(rb'src="(img/[0-9a-f]+\.webp)"', ask(port, "/index.html")[1])
    assert urls
    assert ask(port, "/" + urls[0].decode())[2]["Content-Type"] == "image/webp"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/img/",
        "/img/../secret",
        "/img/x.webp",
        "/%2e%2e/etc/passwd",
        "/img/" + "0" * 20 + ".webp",
        "/..//etc/passwd",
    ],
)
def test_nothing_else_is_served(serving: tuple[int, Path], path: str) -> None:
    assert ask(serving[0], path)[0] == 404


def test_other_names_for_this_machine_are_refused(serving: tuple[int, Path]) -> None:
    assert ask(serving[0], "/", host="evil.example:80")[0] == 403


def test_it_listens_on_loopback_only(serving: tuple[int, Path], tmp_path: Path) -> None:
    with live.server(lambda _: None, tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"
