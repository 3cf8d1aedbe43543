"""Keys and their content, and the order of steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.errors import RecipeError
from orchestrator.plan.planner import _NOT_IN_KEY, make_plan
from orchestrator.plan.step import Lane, StepKind, StepSource
from orchestrator.recipe import Training, Validation, loader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan.plan import Plan
    from orchestrator.recipe import Recipe


class Fixed:
    """Inputs in which every file has the digest of its name."""

    def __init__(
        self,
        *,
        engine: str = "1",
        checkpoint: str = "c",
        where: str = "/a",
        beside: str = "b",
        tool: str = "",
        image: str = "digest",
    ) -> None:
        self._engine, self._checkpoint, self._where = engine, checkpoint, where
        self._beside, self._tool, self._image = beside, tool, image

    def images(self, recipe: Recipe) -> Sequence[StepSource]:
        path = Path(self._where) / "1.png"
        return [StepSource(f"{name}/1.png", path, f"{self._image} of {name}") for name in recipe.dataset.sources]

    def file(self, role: str, name: str, sha256: str) -> StepSource:
        digest = self._checkpoint if role in ("checkpoint", "vae") else self._beside
        return StepSource(role, Path(self._where) / name, sha256 or digest)

    def engine_version(self, name: str) -> str:
        return f"{name} {(self._tool if name == 'sd-scripts' else '') or self._engine}"


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    root = Path(__file__).resolve().parents[2] / "recipes"
    return {name: loader.recipe(root, name).recipe for name in loader.names(root)}


def keys(plan: Plan) -> dict[str, str]:
    return {step.name: step.key for step in plan.steps}


def test_the_steps_of_the_release(recipes: dict[str, Recipe]) -> None:
    plan = make_plan(recipes.values(), Fixed())
    counts = {kind: sum(step.kind is kind for step in plan.steps) for kind in StepKind}
    # five datasets, five grids, five resizes of lora3x3, and one release of all
    assert counts == {"dataset": 5, "train": 15, "merge": 15, "resize": 5, "render": 15 + 5, "release": 15 + 1}
    assert [step.name for step in plan.of("krnk-lora3x3")] == [
        "krnk/dataset",
        *(f"krnk-lora3x3/{kind}" for kind in ("train", "merge", "resize", "render", "release")),
    ]
    assert {step.kind for step in plan.steps if step.lane is Lane.GPU} == {StepKind.TRAIN, StepKind.RENDER}
    assert [step.name for step in plan.shared()][-1] == "krnk_tyank/release"
    before: set[str] = set()
    for step in plan.steps:
        assert set(step.needs) <= before
        before.add(step.name)


def test_further_files_of_a_base_are_sources_and_in_the_key() -> None:
    root = Path(__file__).resolve().parents[2] / "recipes"
    recipe = loader.recipe(root, str(root / "examples" / "krnk-anima.toml")).recipe
    plan = make_plan([recipe], Fixed())
    train = next(step for step in plan.steps if step.kind is StepKind.TRAIN)
    assert [source.role for source in train.sources] == ["checkpoint", "vae", "qwen3"]
    assert [step.kind for step in plan.steps] == [StepKind.DATASET, StepKind.TRAIN, StepKind.RENDER, StepKind.RELEASE]
    assert keys(make_plan([recipe], Fixed(beside="another")))["krnk-anima/train"] != train.key


def test_keys_are_independent_of_paths_and_of_execution(recipes: dict[str, Recipe]) -> None:
    recipe = recipes["krnk-locon"]
    how = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"data_loader_workers": 1, "log_prefix": "x"})}
    )
    base = keys(make_plan([recipe], Fixed()))
    assert keys(make_plan([recipe], Fixed(where="/b"))) == base
    assert keys(make_plan([how], Fixed()))["krnk-locon/train"] == base["krnk-locon/train"]


@pytest.mark.parametrize(
    ("inputs", "changed"), [(Fixed(engine="2"), {"train", "render"}), (Fixed(checkpoint="d"), {"train", "render"})]
)
def test_keys_change_with_the_result(recipes: dict[str, Recipe], inputs: Fixed, changed: set[str]) -> None:
    before, after = keys(make_plan([recipes["krnk-lora3x3"]], Fixed())), keys(make_plan([recipes["krnk-lora3x3"]], inputs))
    assert before["krnk/dataset"] == after["krnk/dataset"]
    for kind in changed:
        assert before[f"krnk-lora3x3/{kind}"] != after[f"krnk-lora3x3/{kind}"]


OTHER: dict[str, Any] = {
    "steps": 7,
    "learning_rate": 0.5,
    "text_encoder_lr": 0.5,
    "unet_lr": 0.5,
    "optimizer": "Lion",
    "optimizer_args": {"weight_decay": 0.5},
    "lr_scheduler": "linear",
    "lr_scheduler_num_cycles": 7,
    "lr_warmup_steps": 7,
    "seed": 7,
    "mixed_precision": "bf16",
    "save_precision": "bf16",
    "gradient_checkpointing": False,
    "gradient_accumulation_steps": 7,
    "attention": "none",
    "cache_latents": "memory",
    "max_grad_norm": 0.5,
    "train": "unet",
    "save_every_n_steps": 7,
    "validation": Validation(split=0.1),
    "options": {"noise_offset": 0.5},
    "text_encoders": ("clip_l",),
    "cache_text_encoder_outputs": "disk",
    "fp8_base": True,
    "torch_compile": True,
    "timestep_sampling": "shift",
    "sigmoid_scale": 0.5,
    "flow_shift": 0.5,
    "guidance_scale": 0.0,
    "model_prediction_type": "raw",
    "weighting_scheme": "mode",
    "logit_mean": 0.0,
    "logit_std": 0.5,
    "mode_scale": 0.0,
}


def test_every_setting_of_a_training_is_in_its_key_except_its_execution(recipes: dict[str, Recipe]) -> None:
    recipe = recipes["krnk-lora3x3"]
    assert OTHER.keys() == Training.model_fields.keys() - _NOT_IN_KEY
    assert "validation" not in make_plan([recipe], Fixed()).by_name["krnk-lora3x3/train"].params["training"]  # unset
    before = keys(make_plan([recipe], Fixed()))["krnk-lora3x3/train"]
    for name, value in OTHER.items():
        assert getattr(recipe.training, name) != value, name
        other = recipe.model_copy(update={"training": recipe.training.model_copy(update={name: value})})
        assert keys(make_plan([other], Fixed()))["krnk-lora3x3/train"] != before, name


def test_start_file_triggers_tools_and_templates_are_in_the_keys_of_their_steps(recipes: dict[str, Recipe]) -> None:
    recipe = recipes["krnk-lora3x3"]

    def changed(first: Recipe, second: Recipe, **other: str) -> set[str]:
        before, after = keys(make_plan([first], Fixed())), keys(make_plan([second], Fixed(**other)))
        return {name.rpartition("/")[2] for name in before if before[name] != after[name]}

    after_training = {"merge", "resize", "render", "release"}
    started = recipe.model_copy(update={"network": recipe.network.model_copy(update={"weights": "old.safetensors"})})
    assert changed(started, started, beside="another") == {"train", *after_training}
    called = recipe.model_copy(update={"release": recipe.release.model_copy(update={"keywords": ("other",)})})
    assert changed(recipe, called) == {"render", "release"}
    assert recipe.resize is not None
    with_sd_scripts = recipe.model_copy(update={"resize": recipe.resize.model_copy(update={"tool": "sd-scripts"})})
    assert changed(recipe, with_sd_scripts) == {"resize", "render", "release"}
    with_device = with_sd_scripts.model_copy(
        update={"resize": recipe.resize.model_copy(update={"tool": "sd-scripts", "options": {"a": 1}})}
    )
    assert changed(with_sd_scripts, with_device) == {"resize", "render", "release"}
    embedded = recipe.model_copy(update={"engine": "embedded"})
    tool = embedded.model_copy(update={"resize": with_sd_scripts.resize})
    assert changed(embedded, embedded, tool="2") == set()
    assert changed(tool, tool, tool="2") == {"resize", "render", "release"}
    own = recipe.model_copy(update={"release": recipe.release.model_copy(update={"templates": "cards"})})
    assert changed(own, own, beside="another") == {"release"}


RELEASED = ("release",)
RESIZED = ("resize", "render", *RELEASED)
MERGED = ("merge", *RESIZED)
TRAINED = ("train", *MERGED)


@pytest.mark.parametrize(
    ("setting", "value", "changed"),
    [
        ("base.vae", "", TRAINED),
        ("base.clip_skip", 1, TRAINED),
        ("network.dim", 7, TRAINED),
        ("network.args", {"module_dropout": 0.1}, TRAINED),
        ("guards.retry", ({"mixed_precision": "bf16"},), TRAINED),
        ("guards.stall_seconds", 7, ()),
        ("dataset.repeats", 7, ("dataset", *TRAINED)),
        ("merge.zeroed", "prune", MERGED),
        ("merge.unmapped", 0.5, MERGED),
        ("merge.options", {"a": 1}, RELEASED),  # of sd-scripts' program, which is not the tool; the card has the whole recipe
        ("resize.new_rank", 7, RESIZED),
        ("render.seed", 7, ("render", *RELEASED)),
        ("release.version", "7", RELEASED),
        ("summary", "another", RELEASED),
    ],
)
def test_a_setting_changes_the_steps_that_use_it_and_those_behind(
    recipes: dict[str, Recipe], setting: str, value: Any, changed: tuple[str, ...]
) -> None:
    recipe = recipes["krnk-lora3x3"]
    part, _, name = setting.rpartition(".")
    other = recipe.model_copy(update={part: getattr(recipe, part).model_copy(update={name: value})} if part else {name: value})
    before, after = keys(make_plan([recipe], Fixed())), keys(make_plan([other], Fixed()))
    assert tuple(step.rpartition("/")[2] for step in before if before[step] != after[step]) == changed


def test_architecture_pictures_and_the_version_of_a_merges_tool_are_in_keys(recipes: dict[str, Recipe]) -> None:
    bare = recipes["krnk-lora3x3"].model_copy(update={"block_weights": None, "engine": "embedded"})
    sdxl = bare.model_copy(update={"base": bare.base.model_copy(update={"architecture": "sdxl"})})
    assert keys(make_plan([bare], Fixed()))["krnk-lora3x3/train"] != keys(make_plan([sdxl], Fixed()))["krnk-lora3x3/train"]
    assert keys(make_plan([bare], Fixed()))["krnk/dataset"] != keys(make_plan([bare], Fixed(image="other")))["krnk/dataset"]
    recipe = bare.model_copy(update={"block_weights": recipes["krnk-lora3x3"].block_weights})
    with_sd_scripts = recipe.model_copy(update={"merge": recipe.merge.model_copy(update={"tool": "sd-scripts"})})
    before, after = keys(make_plan([with_sd_scripts], Fixed())), keys(make_plan([with_sd_scripts], Fixed(tool="2")))
    assert {step.rpartition("/")[2] for step in before if before[step] != after[step]} == set(MERGED)


def test_one_block_weight_changes_the_merge_and_later_steps(recipes: dict[str, Recipe]) -> None:
    recipe = recipes["krnk-lora3x3"]
    assert isinstance(recipe.block_weights, tuple)
    other = recipe.model_copy(update={"block_weights": (*recipe.block_weights[:-1], 0.5)})
    before, after = keys(make_plan([recipe], Fixed())), keys(make_plan([other], Fixed()))
    same = {name for name in before if before[name] == after[name]}
    assert same == {"krnk/dataset", "krnk-lora3x3/train"}


def test_the_same_plan_has_the_same_keys_in_another_process(recipes: dict[str, Recipe]) -> None:
    """Pinned: a key that changes between versions throws away everybody's finished work, so it changes on purpose only."""
    step = make_plan([recipes["krnk-locon"]], Fixed()).by_name["krnk-locon/merge"]
    assert len(step.key) == 64
    assert step.folder == f"merge-{step.key[:12]}"
    assert make_plan([recipes["krnk-locon"]], Fixed()).by_name["krnk-locon/merge"] == step


def test_two_contents_for_one_dataset_are_refused(recipes: dict[str, Recipe]) -> None:
    locon = recipes["krnk-locon"]
    loha = recipes["krnk-loha"].model_copy(update={"dataset": locon.dataset.model_copy(update={"repeats": 9})})
    with pytest.raises(RecipeError, match="the recipes of this run describe krnk/dataset in two ways"):
        make_plan([locon, loha], Fixed())


def test_held_out_images_make_a_dataset_of_their_own(recipes: dict[str, Recipe]) -> None:
    """A recipe with held-out images is planned beside those that share its dataset."""
    plain, other = recipes["krnk-lora3x3"], recipes["krnk-locon"]

    def holding(recipe: Recipe, **values: float) -> Recipe:
        return recipe.model_copy(update={"training": recipe.training.model_copy(update={"validation": Validation(**values)})})

    held = holding(other, split=0.1)
    plan = make_plan([plain, held], Fixed())
    assert plan.by_name["krnk-lora3x3/train"].needs == ("krnk/dataset",)
    (need,) = plan.by_name["krnk-locon/train"].needs
    assert need == f"{held.built_dataset()}/dataset"
    assert held.built_dataset().startswith("krnk-held-out-")
    assert holding(other, split=0.1, every_n_steps=7).built_dataset() == held.built_dataset()
    assert len({holding(other, split=split).built_dataset() for split in (0.1, 0.2)}) == 2
