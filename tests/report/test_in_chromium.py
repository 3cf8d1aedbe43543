"""The report as people see it: in a real Chromium, from disk and live."""

from __future__ import annotations

import json
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest

import made_runs
from orchestrator import report
from orchestrator.report import live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
try:
    from axe_core_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright
except ModuleNotFoundError:
    pytest.skip("no Playwright: pip install playwright axe-core-python", allow_module_level=True)
if not CHROMIUM:
    pytest.skip("no Chromium: apt-get install chromium, or set CHROMIUM", allow_module_level=True)

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

PATIENCE = 120_000  # milliseconds: the machine may be busy
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with five finished recipes of two subjects, one training under way, and one that failed."""
    root = tmp_path_factory.mktemp("runs")
    subjects = ("krnk", "krnksf_tyankps")
    made_runs.collection(
        root, [f"{subject}-{algorithm}" for subject in subjects for algorithm in ("lora3x3", "locon", "loha")]
    )
    made_runs.variants(root, made_runs.loaded("krnk-lora3x3").recipe)
    for name, code in (("tyank-locon", None), ("tyank-loha", 1)):
        work = root / name / ".partial" / f"train-{made_runs.key(f'{name}/train')[:12]}"
        work.mkdir(parents=True)
        lines = [{"t": n, "done": n, "total": 100, "loss": 0.2 - n / 1000, "lr": 1e-4, "note": ""} for n in range(1, 41)]
        (work / "progress.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
        if code is not None:
            (work / "exit.json").write_text(json.dumps({"code": code}), "utf-8")
            (work / "log.txt").write_text("RuntimeError: something went wrong\n", "utf-8")
    report.write(root, made_runs.recipes(), root / "report" / "index.html", plan=made_runs.plan_json(root))
    few = [made_runs.loaded(name) for name in ("krnk-lora3x3", "krnk-loha", "tyank-locon", "tyank-loha")]
    report.write(root, few, root / "report" / "few.html")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


class BrowserPage:
    """A page, its errors and its requests."""

    def __init__(self, browser: Any, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console", lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def scroll(self) -> None:
        """Go down the whole page, so that every lazy picture loads."""
        self.page.evaluate(
            """async () => {
                document.documentElement.style.scrollBehavior = 'auto';
                for (const image of document.images) image.loading = 'eager';
                for (let y = 0; y < document.documentElement.scrollHeight; y += 700) {
                    scrollTo(0, y); await new Promise((done) => setTimeout(done, 15));
                }
                scrollTo(0, 0);
            }"""
        )


@pytest.fixture
def tab(browser: Any, runs: Path) -> Iterator[BrowserPage]:
    made = BrowserPage(browser)
    made.page.goto((runs / "report" / "index.html").as_uri())
    yield made
    made.page.close()


def test_no_errors_no_outside_requests_and_every_picture_loads(tab: BrowserPage, runs: Path) -> None:
    tab.scroll()
    tab.page.wait_for_function("[...document.images].every((image) => image.complete || !image.src)")
    broken = tab.page.evaluate(
        "[...document.images].filter((i) => i.getAttribute('src') && !i.naturalWidth).map((i) => i.src)"
    )
    assert broken == []
    assert tab.errors == []
    here = (runs / "report").as_uri()
    assert [url for url in tab.requests if not url.startswith((here, "data:"))] == []
    assert tab.page.evaluate("document.images.length") > 40


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_axe_finds_no_serious_violation(browser: Any, runs: Path, width: int, scheme: str) -> None:
    made = BrowserPage(browser, width=width, scheme=scheme)
    made.page.goto((runs / "report" / "few.html").as_uri())
    made.page.add_style_tag(content=".subject, .member, .card { content-visibility: visible !important }")
    for summary in made.page.query_selector_all("details > summary"):
        summary.evaluate("(part) => { part.parentElement.open = true }")
    results = Axe().run(made.page)
    serious = [
        (rule["id"], [node["target"] for node in rule["nodes"]][:3], rule["nodes"][0]["failureSummary"][:300])
        for rule in results["violations"]
        if rule["impact"] in SERIOUS
    ]
    assert serious == []
    assert len(results["passes"]) > 20
    made.page.close()


def test_nothing_sticks_out_from_phone_to_desktop(browser: Any, runs: Path) -> None:
    made = BrowserPage(browser)
    made.page.goto((runs / "report" / "index.html").as_uri())
    made.page.add_style_tag(content=".subject, .member, .card { content-visibility: visible !important }")
    for width in (320, 390, 768, 1440):
        made.page.set_viewport_size({"width": width, "height": 900})
        assert made.page.evaluate("document.documentElement.scrollWidth") <= width
    made.page.close()


def test_the_slider_moves_by_keyboard_and_by_hand(tab: BrowserPage) -> None:
    box = tab.page.locator("#krnk > .panel .compare")
    box.scroll_into_view_if_needed()
    slider = box.locator("input[type=range]")
    slider.focus()
    tab.page.keyboard.press("Home")
    assert box.locator(".stage").evaluate("(stage) => stage.style.getPropertyValue('--at')") == "0%"
    for _ in range(3):
        tab.page.keyboard.press("ArrowRight")
    assert slider.input_value() == "3"
    assert "3 %" in slider.get_attribute("aria-valuetext")
    stage = box.locator(".stage").bounding_box()
    tab.page.mouse.move(stage["x"] + stage["width"] * 0.5, stage["y"] + 40)
    tab.page.mouse.down()
    tab.page.mouse.move(stage["x"] + stage["width"] * 0.8, stage["y"] + 40, steps=4)
    tab.page.mouse.up()
    assert 77 <= int(slider.input_value()) <= 83
    shown = box.locator(".over").evaluate("(image) => getComputedStyle(image).clipPath")
    assert shown.startswith("inset(0")


def test_the_two_sides_are_chosen_by_name(tab: BrowserPage) -> None:
    box = tab.page.locator("#krnk > .panel .compare")
    box.scroll_into_view_if_needed()
    over = box.locator(".over")
    before = over.get_attribute("src")
    box.locator("[data-side=prompt]").select_option("behind")
    assert over.get_attribute("src") != before
    box.locator("[data-side=left]").select_option("lora3x3")
    assert over.get_attribute("alt") == "lora3x3, from behind"
    tab.page.wait_for_function("document.querySelector('#krnk .over').naturalWidth > 0")


def test_two_ratios_are_compared(tab: BrowserPage) -> None:
    box = tab.page.locator("#r-krnk-lora3x3 .variants")
    box.scroll_into_view_if_needed()
    assert box.locator("[data-side=left] option").all_text_contents() == ["sv_ratio 64 (64.0 MiB)", "sv_ratio 16 (16.0 MiB)"]
    assert box.locator(".over").get_attribute("src") != box.locator(".under").get_attribute("src")
    box.locator("[data-side=left]").select_option("sv_ratio 16 (16.0 MiB)")
    assert box.locator(".over").get_attribute("src") == box.locator(".under").get_attribute("src")
    box.locator("input[type=range]").focus()
    tab.page.keyboard.press("End")
    assert box.locator(".stage").evaluate("(stage) => stage.style.getPropertyValue('--at')") == "100%"
    box.locator(".grids .zoom").click()
    assert tab.page.locator("#viewer").evaluate("(dialog) => dialog.open")
    assert tab.errors == []


def test_a_picture_opens_turns_and_closes_by_keyboard(tab: BrowserPage) -> None:
    first = tab.page.locator("#r-krnk-locon .strip .zoom").first
    first.scroll_into_view_if_needed()
    first.focus()
    tab.page.keyboard.press("Enter")
    viewer = tab.page.locator("#viewer")
    assert viewer.evaluate("(dialog) => dialog.open")
    assert "from front" in viewer.locator("p").inner_text()
    tab.page.keyboard.press("ArrowRight")
    assert "from side" in viewer.locator("p").inner_text()
    tab.page.keyboard.press("ArrowLeft")
    tab.page.keyboard.press("ArrowLeft")
    assert "hoodie" in viewer.locator("p").inner_text()
    tab.page.keyboard.press("Escape")
    assert not viewer.evaluate("(dialog) => dialog.open")
    assert first.evaluate("(button) => button === document.activeElement")


def test_light_and_dark_can_be_switched(tab: BrowserPage) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    before = tab.page.evaluate(paper)
    tab.page.locator("#theme").click()
    assert tab.page.evaluate(paper) != before
    tab.page.reload()
    assert tab.page.evaluate(paper) != before
    assert tab.errors == []


def test_a_curve_is_read_under_the_pointer(tab: BrowserPage) -> None:
    chart = tab.page.locator("#loss-krnk-locon svg.chart").first
    chart.hover()
    assert "at step" in chart.locator(".read").first.inner_html()
    assert tab.errors == []


def drawn(tab: BrowserPage) -> list[str]:
    """Return the names of the curves in the chart that lays them over each other."""
    return tab.page.locator("#curves .plot polyline[data-name]").evaluate_all("(lines) => lines.map((l) => l.dataset.name)")


def ends(tab: BrowserPage) -> tuple[float, float]:
    """Return the first and the last number on the horizontal axis."""
    texts = tab.page.locator("#curves .plot text[text-anchor=middle]").all_text_contents()
    return float(texts[0]), float(texts[-1])


def roughness(tab: BrowserPage, name: str) -> float:
    """Return the length of a drawn curve over its width."""
    return float(
        tab.page.locator(f"#curves polyline[data-name='{name}']").evaluate("(line) => line.getTotalLength()")
        / tab.page.locator(f"#curves polyline[data-name='{name}']").evaluate("(line) => line.getBBox().width")
    )


def test_curves_of_any_recipes_are_laid_over_each_other(tab: BrowserPage) -> None:
    subject = tab.page.locator(".subject").first.locator(".member h3").all_text_contents()
    assert drawn(tab) == subject
    tab.page.locator("#curves .picks input[value=krnksf_tyankps-loha]").focus()
    tab.page.keyboard.press("Space")
    assert drawn(tab) == [*subject, "krnksf_tyankps-loha"]
    looks = tab.page.locator("#curves polyline[data-name]").evaluate_all("(l) => l.map((e) => e.getAttribute('class'))")
    assert len(set(looks)) == len(looks)
    whole = ends(tab)[1]
    for curve in ("this step", "held-out images", "U-Net", "text encoder"):
        tab.page.locator("[data-set=curve]").select_option(curve)
        assert drawn(tab) == [*subject, "krnksf_tyankps-loha"]
    tab.page.locator("[data-set=along]").select_option("share")
    last = tab.page.locator("#curves .plot text[text-anchor=middle]").last.text_content()
    assert last == "100 %"
    assert whole > 100
    tab.page.locator("[data-pick=none]").click()
    assert drawn(tab) == []
    assert "Choose recipes" in tab.page.locator("#curves .plot").text_content()
    tab.page.reload()
    assert tab.page.locator("[data-set=along]").input_value() == "share"
    assert drawn(tab) == []
    assert tab.errors == []


def test_a_training_under_way_can_be_chosen(tab: BrowserPage) -> None:
    tab.page.locator("[data-pick=none]").click()
    tab.page.locator("#curves .picks input[value=tyank-locon]").check()
    assert drawn(tab) == ["tyank-locon"]
    tab.page.locator("[data-set=curve]").select_option("held-out images")
    assert "No chosen recipe has a validation loss" in tab.page.locator("#curves .plot").text_content()
    assert tab.errors == []


def test_smoothing_makes_a_curve_smooth_and_keeps_its_own(tab: BrowserPage) -> None:
    before = roughness(tab, "krnk-locon")
    assert tab.page.locator("#curves .raw").count() == 0
    tab.page.locator("[data-set=smooth]").focus()
    for _ in range(9):
        tab.page.keyboard.press("PageUp")
    assert int(tab.page.locator("[data-set=smooth]").input_value()) > 80
    assert roughness(tab, "krnk-locon") < before * 0.8
    assert tab.page.locator("#curves .raw").count() == 3
    tab.page.locator("[data-set=log]").check()
    assert len(drawn(tab)) == 3
    assert tab.errors == []


def test_the_chart_zooms_by_hand_and_by_keyboard(tab: BrowserPage) -> None:
    whole = ends(tab)
    plot = tab.page.locator("#curves .plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 90)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 90, steps=4)
    tab.page.mouse.up()
    left, right = ends(tab)
    assert right - left < (whole[1] - whole[0]) / 3
    plot.dblclick()
    assert ends(tab) == whole
    plot.focus()
    tab.page.keyboard.press("+")
    tab.page.keyboard.press("+")
    near = ends(tab)
    assert near[1] - near[0] < (whole[1] - whole[0]) / 2
    tab.page.keyboard.press("Shift+ArrowRight")
    assert ends(tab)[0] > near[0]
    tab.page.keyboard.press("-")
    tab.page.keyboard.press("0")
    assert ends(tab) == whole
    value = tab.page.locator("#curves .picks output").first
    before = value.inner_text()
    for _ in range(10):
        tab.page.keyboard.press("ArrowLeft")
    assert plot.locator(".cross").count() == 1
    assert value.inner_text() != before
    tab.page.locator("#curves [data-key='+']").click()
    assert ends(tab) != whole
    assert tab.errors == []


def test_a_filter_leaves_the_recipes_with_its_words(tab: BrowserPage) -> None:
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("tyank loh")
    visible = "(parts) => parts.filter((part) => part.checkVisibility()).length"
    assert tab.page.locator(".card").evaluate_all(visible) == 3
    assert tab.page.locator(".filter output").inner_text() == "3 of 15"
    assert tab.page.locator("article.member:not([hidden])").count() == 3
    assert tab.page.locator("#krnk").is_hidden()
    tab.page.locator("[data-pick=none]").click()
    tab.page.locator("[data-pick=listed]").click()
    assert drawn(tab) == ["krnksf_tyankps-loha", "tyank-loha"]  # tyankps-loha has not begun
    tab.page.locator("#filter").fill("failed")
    assert tab.page.locator(".card:not([hidden])").get_attribute("data-name") == "tyank-loha"
    tab.page.locator("#filter").fill("")
    assert tab.page.locator(".card").evaluate_all(visible) == 15
    assert tab.errors == []


def test_without_script_all_is_there(browser: Any, runs: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.set_default_timeout(PATIENCE)
    page.goto((runs / "report" / "index.html").as_uri())
    assert page.locator("article.member").count() == 15
    assert page.locator("#r-krnk-locon svg.chart").count() >= 2
    assert "something went wrong" in page.locator("#r-tyank-loha").text_content()
    page.close()


def test_the_live_page_refreshes_itself(browser: Any, runs: Path, tmp_path: Path) -> None:
    write = live.writer(runs, lambda: (made_runs.recipes(), made_runs.plan_json(runs)))
    with live.server(write, tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made = BrowserPage(browser)
        try:
            made.page.goto(f"http://127.0.0.1:{server.server_port}/")
            assert "40 of 100" in made.page.locator("#summary").inner_text()
            made.page.locator("#r-krnk-locon details:first-of-type").evaluate("(part) => { part.open = true }")
            path = next(runs.glob("tyank-locon/.partial/train-*")) / "progress.jsonl"
            with path.open("a") as file:
                file.write(json.dumps({"done": 71, "total": 100, "loss": 0.0717, "lr": 1e-4}) + "\n")
            made.page.wait_for_selector("#summary >> text=71 of 100", timeout=PATIENCE)
            assert "0.0717" in made.page.locator("#matrix a[href='#r-tyank-locon']").inner_text()
            made_runs.render(runs, made_runs.loaded("tyank-locon").recipe)
            made.page.wait_for_selector("#r-tyank-locon .strip img", state="attached", timeout=PATIENCE)
            assert made.page.locator("#r-krnk-locon details:first-of-type").evaluate(
                "(part) => part.open"
            )  # it has not changed
            assert made.errors == []
            assert all(url.startswith((f"http://127.0.0.1:{server.server_port}/", "data:")) for url in made.requests)
        finally:
            made.page.close()
            server.shutdown()
            thread.join()
