"""A recipe from a stranger reads no pictures outside the project unless the folder is on the allow-list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import harness
from orchestrator.errors import NotReady, RecipeError
from orchestrator.system import allowlist

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("images", ["{outside}", "../outside", "data/../../outside", "{outside}/*.png"])
def test_pictures_outside_are_refused_until_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: str) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    cats = harness.make(tmp_path / "p", monkeypatch)
    outside = tmp_path / "outside"
    (cats.root / "data" / "cat").rename(outside)
    (cats.root / "data").mkdir(exist_ok=True)
    cats.write("_base/base", harness.BASE.replace("data/cat", images.format(outside=outside)))
    with pytest.raises(NotReady, match="is outside the project and not on the allow-list"):
        cats.run("cat-lora", only=("dataset",))
    allowlist.add(outside)
    assert cats.run("cat-lora", only=("dataset",))["cat/dataset"].status.ok


def test_a_link_inside_the_project_is_not_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    (cats.root / "data" / "cat").rename(tmp_path / "outside")
    (cats.root / "data" / "cat").symlink_to(tmp_path / "outside")
    with pytest.raises(NotReady, match="not on the allow-list"):
        cats.run("cat-lora", only=("dataset",))


def test_only_folders_can_be_allowed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not a folder"):
        allowlist.add(tmp_path / "none")


@pytest.mark.parametrize("images", ["data/*/../../outside/*", "data/[c]at/../../../outside"])
def test_a_pattern_does_not_climb_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: str) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    (cats.root / "data" / "cat").rename(tmp_path / "outside")
    cats.write("_base/base", harness.BASE.replace("data/cat", images))
    with pytest.raises(NotReady, match="is outside the project"):
        cats.run("cat-lora", only=("dataset",))


@pytest.mark.parametrize("name", ["f00.png", "f00.txt"])
def test_a_file_that_is_a_link_out_of_the_project_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.write("_base/base", harness.BASE.replace('trigger = "cat"', 'trigger = "cat"\ncaptions = "files"'))
    inside, outside = cats.root / "data" / "cat" / name, tmp_path / f"secret{name[3:]}"
    if name == "f00.png":
        inside.rename(outside)
    else:
        outside.write_text("a secret", "utf-8")
    inside.symlink_to(outside)
    with pytest.raises(NotReady, match=f"{name} is outside the project"):
        cats.run("cat-lora", only=("dataset",))


def test_models_and_templates_outside_are_refused_until_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    cats = harness.make(tmp_path / "p", monkeypatch)
    outside = tmp_path / "out side"
    outside.mkdir()
    (cats.root / "base.safetensors").rename(outside / "base.safetensors")
    cats.recipe("cat-lora", "lora", f'[base]\ncheckpoint = "{outside}/base.safetensors"\n')
    with pytest.raises(NotReady, match="is neither in a model folder nor on the allow-list") as refused:
        cats.run("cat-lora")
    assert f"trust '{outside}'" in refused.value.problems[0].hint
    allowlist.add(outside)
    assert cats.run("cat-lora", only=("train", "dataset"))["cat-lora/train"].status.ok
    other = tmp_path / "templates"
    other.mkdir()
    cats.recipe(
        "cat-lora", "lora", f'[base]\ncheckpoint = "{outside}/base.safetensors"\n[release]\ntemplates = "../templates"\n'
    )
    with pytest.raises(NotReady, match=r"release\.templates"):
        cats.run("cat-lora")


@pytest.mark.parametrize("templates", ["../outside", "{outside}", "link"])
def test_templates_outside_the_allow_list_are_not_read_by_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, templates: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    cats = harness.make(tmp_path / "p", monkeypatch)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x", "utf-8")
    (cats.root / "link").symlink_to(outside)
    name = templates.format(outside=outside)
    cats.recipe("cat-lora", "lora", f'[release]\ntemplates = "{name}"\n')

    def read() -> bool:
        space = cats.space()
        space.plan(space.load(harness.Selection(("cat-lora",))))
        return any("secret" in key for key in space.inputs.digests.used)

    assert not read()
    allowlist.add(outside)
    assert read()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", "subprocess.Popen"),
        ("optimizer", "torch.hub.load"),
        ("optimizer", "torch.optim._functional.os"),
        ("optimizer", "a b"),
        ("lr_scheduler", "os.system"),
    ],
)
def test_a_recipe_names_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-lora", "lora", f'[training]\n{key} = "{value}"\n')
    with pytest.raises(RecipeError, match=f"training.{key}"):
        cats.run("cat-lora")
    cats.recipe("cat-lora", "lora", '[training]\noptimizer = "torch.optim.AdamW"\n')
    assert cats.reasons("cat-lora")["cat-lora/train"] == "new"


def test_names_of_arguments_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cats = harness.make(tmp_path / "p", monkeypatch)
    cats.recipe("cat-lora", "lora", '[training.optimizer_args]\n"--config_file=x" = 1\n')
    with pytest.raises(RecipeError, match="is not the name of an argument"):
        cats.run("cat-lora")
