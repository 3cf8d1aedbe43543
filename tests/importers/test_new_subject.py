"""Recipes of a new subject, from folders of images."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from command_line import call
from dataset_cases import face
from headers import write
from orchestrator import engines
from orchestrator.dataset.layout import make_layout
from orchestrator.dataset.problems import dataset_problems
from orchestrator.errors import RecipeError
from orchestrator.importers import inspect_folder, new_subject, subject_notes, subject_options
from orchestrator.importers.subject_options import NewSubject
from orchestrator.recipe import loader, schema
from orchestrator.run import model_files, preflight
from orchestrator.run.workspace import Workspace
from orchestrator.system import allowlist


def draw_images(folder: Path, names: list[str], size: tuple[int, int] = (96, 96)) -> Path:
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        Image.new("RGB", size, (20 * index % 255, 60, 90)).save(folder / f"{name}.png")
    return folder


VIEWS = ["f00", "f01", "f02", "f03", "f04", "f10", "f11", "f12", "f13", "f20", "f21", "f22"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "empty folder 猫"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_from_an_empty_folder_to_a_plan_in_two_commands(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_images(empty / "pictures", VIEWS)
    assert call(monkeypatch, "new", "mimi", "--images", "pictures", "--yes") == 0
    output = capsys.readouterr().out
    assert "python -m orchestrator run mimi-lora3x3 --profile demo" in output
    assert call(monkeypatch, "plan", "mimi-lora3x3", "--profile", "demo", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [step["kind"] for step in plan["recipes"][0]["steps"]] == [
        "dataset",
        "train",
        "merge",
        "resize",
        "render",
        "release",
    ]
    assert plan["recipes"][0]["predicted"]["images"] == 12 + 36, "beside the others of the program"


def test_a_face_follows_the_release(empty: Path) -> None:
    draw_images(empty / "a", VIEWS, (768, 768))
    made = new_subject.generate(NewSubject("mimi", (empty / "a",)), empty)
    new_subject.write(made, empty)
    recipe = loader.recipe(empty / "recipes", "mimi-locon").recipe
    assert (recipe.type, recipe.training.steps, recipe.dataset.repeats) == ("face", 1000, 4)
    assert recipe.dataset.sizes == (128, 192, 256, 384, 512)
    assert recipe.dataset.sources["mimi"].captions == "view"
    assert recipe.triggers() == ("mimi",)
    assert recipe.release.source == ""
    assert recipe.release.collection == "mimi"


def test_bodies_and_groups_are_recognized(empty: Path) -> None:
    face = draw_images(empty / "face", VIEWS)
    body = draw_images(empty / "body", [name.replace("f", "b") for name in VIEWS], (96, 160))
    other = draw_images(empty / "other", ["one", "two"], (90, 180))
    assert "1200" in " ".join(new_subject.generate(NewSubject("mimi", (body, face)), empty).notes)
    made = new_subject.generate(NewSubject("both", (body, other)), empty)
    new_subject.write(made, empty)
    recipe = loader.recipe(empty / "recipes", "both-loha").recipe
    assert (recipe.type, recipe.training.steps, recipe.dataset.repeats) == ("group", 1600, 1)
    assert set(recipe.dataset.sources) == {"both", "other"}
    assert recipe.dataset.sources["other"].captions == "files"


def test_caption_files_are_used_and_gaps_are_filled(empty: Path) -> None:
    folder = draw_images(empty / "a", ["x", "y", "z"])
    for name in ("x", "y"):
        (folder / f"{name}.caption").write_text("mimi, smile", "utf-8")
    new_subject.write(new_subject.generate(NewSubject("mimi", (folder,), algorithms=("loha",)), empty), empty)
    source = loader.recipe(empty / "recipes", "mimi-loha").recipe.dataset.sources["mimi"]
    assert (source.captions, source.caption_files, source.texts) == ("files", ".caption", {})


def test_caption_files_of_a_few_images_are_used(empty: Path) -> None:
    folder = draw_images(empty / "a", [f"photo {number}" for number in range(10)])
    (folder / "photo 3.txt").write_text("mimi, red ear\n", "utf-8")
    generated = new_subject.generate(NewSubject("mimi", (folder,)), empty)
    assert 'captions = "files"' in generated.files["_subjects/mimi.toml"]
    assert any(
        'the caption of "photo 0", "photo 1", "photo 2", "photo 4", "photo 5" and 4 more' in note for note in generated.notes
    )
    named = draw_images(empty / "b", VIEWS)
    (named / "f03.txt").write_text("mimi, hat\nmore\n", "utf-8")
    new_subject.write(new_subject.generate(NewSubject("momo", (named,), algorithms=("locon",)), empty), empty)
    source = loader.recipe(empty / "recipes", "momo-locon").recipe.dataset.sources["momo"]
    assert (source.captions, source.texts) == ("view", {})
    (named / "f04.txt").write_text("\n", "utf-8")
    with pytest.raises(RecipeError, match="an empty first line"):
        new_subject.generate(NewSubject("mumu", (named,)), empty)


def test_images_of_any_shape_suit_every_algorithm(empty: Path) -> None:
    """Every algorithm of `new` writes a recipe that loads.

    It does at full size and in the demo, and every size fits a bucket.
    """
    folder = empty / "a"
    folder.mkdir()
    for number, size in enumerate([(512, 768), (768, 512), (1024, 1024), (900, 300), (832, 1216)]):
        Image.new("RGB", size, (20 * number, 60, 90)).save(folder / f"p{number}.png")
    generated = new_subject.generate(NewSubject("mimi", (folder,), algorithms=tuple(subject_options.algorithms())), empty)
    new_subject.write(generated, empty)
    assert any("the flattest one, 1 : 3.0, needs a height of 64" in note for note in generated.notes)
    assert "mimi-boft" in generated.recipes
    assert "mimi-alpha1" not in generated.recipes
    for name in generated.recipes:
        for profile in ("", "demo"):
            recipe = loader.recipe(empty / "recipes", name, profile).recipe
            assert dataset_problems(make_layout(recipe.dataset, empty), recipe.dataset, empty) == [], (name, profile)


def test_the_demo_takes_recipes_with_other_settings_too(empty: Path) -> None:
    folder = draw_images(empty / "a", VIEWS)
    new_subject.write(new_subject.generate(NewSubject("mimi", (folder,), algorithms=("lora3x3",)), empty), empty)
    text = (empty / "recipes" / "mimi-lora3x3.toml").read_text("utf-8")
    text = text.replace("extends = [", 'unset = ["training.text_encoder_lr", "training.state_every_n_steps"]\nextends = [')
    more = '[network]\nweights = "old.safetensors"\n[training]\nunet_lr = 1.0\ntrain = "unet"\nlr_warmup_steps = 100\n'
    more += 'lr_scheduler = "cosine"\n'
    more += 'gradient_accumulation_steps = 4\noptimizer = "Prodigy"\noptimizer_args = {d_coef = 2.0}\n'
    (empty / "recipes" / "mimi-other.toml").write_text(text + more, "utf-8")
    assert engines.get("sd-scripts").check(loader.recipe(empty / "recipes", "mimi-other").recipe) == []
    small = loader.recipe(empty / "recipes", "mimi-other", "demo").recipe
    assert engines.get("embedded").check(small) == []
    assert small.training.optimizer_args == {}


def test_arguments_override_suggestions(empty: Path) -> None:
    folder = draw_images(empty / "a", VIEWS)
    write(empty / "models" / "mine.safetensors", {"model.diffusion_model.x": [2]})
    subject = NewSubject("mimi", (folder,), "body", ("mmneko",), ("lokr",), 300, 7, "mine.safetensors")
    new_subject.write(new_subject.generate(subject, empty), empty)
    recipe = loader.recipe(empty / "recipes", "mimi-lokr").recipe
    assert (recipe.type, recipe.training.steps, recipe.dataset.repeats) == ("body", 300, 7)
    assert (recipe.base.checkpoint, recipe.base.vae, recipe.triggers()) == ("mine.safetensors", "", ("mmneko",))


BASES = {
    "anima": {"net.blocks.0.cross_attn.q_proj.weight": [2, 2], "net.llm_adapter.x": [2]},
    "flux": {"double_blocks.0.img_mod.lin.weight": [2, 2], "guidance_in.in_layer.weight": [2, 2]},
    "flux-schnell": {"double_blocks.0.img_mod.lin.weight": [2, 2]},
    "chroma": {"double_blocks.0.img_attn.x": [2], "distilled_guidance_layer.x": [2]},
    "sdxl": {"model.diffusion_model.x": [2], "conditioner.x": [2]},
    "sd2": {"model.diffusion_model.x": [2], "cond_stage_model.model.x": [2]},
    "sd3-medium": {"joint_blocks.0.x": [2], "joint_blocks.23.x": [2]},
    "sd3.5-medium": {"joint_blocks.0.x_block.attn2.x": [2], "joint_blocks.23.x": [2]},
    "sd3.5-large": {"model.diffusion_model.joint_blocks.0.x": [2], "model.diffusion_model.joint_blocks.37.x": [2]},
    "lumina": {"context_refiner.0.attention.qkv.weight": [2]},
    "hunyuan-image": {"double_blocks.0.img_mod.linear.weight": [2], "byt5_in.x": [2]},
}


@pytest.mark.parametrize("architecture", BASES)
def test_the_header_of_the_base_model_tells_its_architecture(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], architecture: str
) -> None:
    draw_images(empty / "a", VIEWS, (1024, 1024))
    write(empty / "models" / "diffusion_models" / "mine.safetensors", BASES[architecture])
    assert call(monkeypatch, "new", "mimi", "--images", "a", "--base", "mine.safetensors", "--yes", "--json") == 0
    output = json.loads(capsys.readouterr().out)
    assert any("mine.safetensors is " in note for note in output["notes"])
    for name in output["recipes"]:
        recipe = loader.recipe(empty / "recipes", name).recipe
        assert (recipe.base.architecture, recipe.base.checkpoint) == (architecture, "mine.safetensors")
        assert engines.get("sd-scripts").check(recipe) == []


@pytest.mark.parametrize(
    ("width", "sizes", "note"), [(1024, (768,), "copies 768 pixels wide;"), (512, (), "sizes none, only the originals")]
)
@pytest.mark.parametrize("architecture", ["flux", "sdxl"])
def test_the_copies_are_those_of_the_base_models_part(
    empty: Path, architecture: str, width: int, sizes: tuple[int, ...], note: str
) -> None:
    write(empty / "models" / "mine.safetensors", BASES[architecture])
    folder = draw_images(empty / "a", VIEWS, (width, width))
    generated = new_subject.generate(NewSubject("mimi", (folder,), base="mine.safetensors"), empty)
    new_subject.write(generated, empty)
    assert loader.recipe(empty / "recipes", generated.recipes[0]).recipe.dataset.sizes == sizes
    assert note in " ".join(generated.notes)


def test_a_base_model_without_its_suffix_is_named(empty: Path) -> None:
    draw_images(empty / "a", VIEWS)
    write(empty / "models" / "mine-v1.0.safetensors", BASES["anima"])
    with pytest.raises(RecipeError, match=r"did you mean mine-v1\.0\.safetensors\?"):
        new_subject.generate(NewSubject("mimi", (empty / "a",), base="mine-v1.0"), empty)


def test_a_checkpoint_with_v_prediction_gets_its_part(empty: Path) -> None:
    draw_images(empty / "a", VIEWS)
    write(empty / "models" / "noob.safetensors", {**BASES["sdxl"], "v_pred": [1], "ztsnr": [1]})
    generated = new_subject.generate(NewSubject("mimi", (empty / "a",), base="noob.safetensors"), empty)
    assert any("predicts v by its header: the recipes extend _base/sdxl-vpred" in note for note in generated.notes)
    new_subject.write(generated, empty)
    assert loader.recipe(empty / "recipes", "mimi-locon").recipe.training.options["v_parameterization"] is True


def test_a_checkpoint_of_sd2_gets_its_part_and_the_name_of_the_other(empty: Path) -> None:
    draw_images(empty / "a", VIEWS)
    write(empty / "models" / "mine.safetensors", BASES["sd2"])
    generated = new_subject.generate(NewSubject("mimi", (empty / "a",), base="mine.safetensors"), empty)
    (note,) = [note for note in generated.notes if "mine.safetensors is SD2" in note]
    assert "extend _base/sd2;" in note
    assert "if it predicts v, extend _base/sd2-vpred" in note
    new_subject.write(generated, empty)
    recipe = loader.recipe(empty / "recipes", "mimi-locon").recipe
    assert (recipe.training.mixed_precision, recipe.dataset.resolution_classes) == ("bf16", (512,))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (None, "--base mine.safetensors  not found: the file tells the architecture"),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight": [4096, 4096]}, "is the text encoder T5-XXL"),
        ({"lora_unet_x.lora_up.weight": [2]}, "is a LoRA"),
        ({"x": [2]}, "is not the checkpoint of a known architecture"),
    ],
)
def test_a_base_model_that_tells_nothing_is_refused(empty: Path, shapes: dict[str, list[int]] | None, message: str) -> None:
    draw_images(empty / "a", VIEWS)
    if shapes is not None:
        write(empty / "models" / "mine.safetensors", shapes)
    with pytest.raises(RecipeError) as error:
        new_subject.generate(NewSubject("mimi", (empty / "a",), base="mine.safetensors"), empty)
    assert message in str(error.value.problems[0])


def test_an_algorithm_that_does_not_train_the_base_model_is_refused(empty: Path) -> None:
    draw_images(empty / "a", VIEWS)
    write(empty / "models" / "mine.safetensors", BASES["anima"])
    with pytest.raises(RecipeError, match="lora1x1 does"):
        new_subject.generate(NewSubject("mimi", (empty / "a",), algorithms=("loha",), base="mine.safetensors"), empty)


def test_a_project_may_have_parts_of_its_own(empty: Path) -> None:
    new_subject.write(new_subject.generate(NewSubject("mimi", (draw_images(empty / "a", VIEWS),)), empty), empty)
    (empty / "recipes" / "_base").mkdir()
    (empty / "recipes" / "_base" / "face.toml").write_text('type = "face"\n[training]\nsteps = 5\n', "utf-8")
    assert loader.recipe(empty / "recipes", "mimi-loha").recipe.training.steps == 5


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (NewSubject("my character", (Path("a"),)), "for example my-character"),
        (NewSubject("mimi", (Path("a"),), "fase"), "did you mean face?"),
        (NewSubject("mimi", (Path("a"),), algorithms=("locan",)), "did you mean locon?"),
        (NewSubject("mimi", (Path("nowhere"),)), "nowhere"),
        (NewSubject("mimi", (Path("a"),), triggers=("x", "y")), "2 words for 1 folder"),
        (NewSubject("mimi", (Path("a"), Path("a")), triggers=("x,y z",)), "--trigger x --trigger 'y z'"),
        (NewSubject("mimi", (Path("a"),), algorithms=("lora",)), "did you mean lora1x1 or lora3x3?"),
    ],
)
def test_invalid_arguments_are_reported(empty: Path, subject: NewSubject, message: str) -> None:
    draw_images(empty / "a", ["f00"])
    with pytest.raises(RecipeError) as error:
        new_subject.generate(subject, empty)
    assert message in str(error.value)


def test_nothing_is_overwritten(empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    draw_images(empty / "a", VIEWS)
    assert call(monkeypatch, "new", "mimi", "--images", "a", "--yes") == 0
    before = (empty / "recipes" / "mimi-loha.toml").read_text("utf-8")
    assert call(monkeypatch, "new", "mimi", "--images", "a", "--yes") == 2
    assert "exists already" in capsys.readouterr().err
    assert (empty / "recipes" / "mimi-loha.toml").read_text("utf-8") == before


def test_a_folder_of_folders_names_its_subfolders(empty: Path) -> None:
    draw_images(empty / "a" / "inner", ["x"])
    with pytest.raises(RecipeError, match="inner"):
        inspect_folder.inspect(empty / "a")


def test_a_common_word_is_warned_about(empty: Path) -> None:
    made = new_subject.generate(NewSubject("kitten", (draw_images(empty / "a", VIEWS),)), empty)
    assert any("has a meaning to CLIP" in note for note in made.notes)
    assert not any(
        "has a meaning to CLIP" in note for note in new_subject.generate(NewSubject("zqmimi", (empty / "a",)), empty).notes
    )


def test_without_a_terminal_nothing_is_written_unless_yes(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = draw_images(empty.parent / "elsewhere", VIEWS)
    assert call(monkeypatch, "new", "mimi", "--images", str(elsewhere)) == 2
    assert "add --yes to accept this proposal" in capsys.readouterr().err
    assert not (empty / "recipes").exists()
    assert not allowlist.is_allowed(elsewhere, empty)


@pytest.mark.parametrize("relative", [False, True])
def test_a_path_that_the_user_names_is_allowed(empty: Path, monkeypatch: pytest.MonkeyPatch, relative: bool) -> None:
    elsewhere = draw_images(empty.parent / "elsewhere", VIEWS)
    base = empty.parent / "models of mine" / "mine.safetensors"
    write(base, {"model.diffusion_model.input_blocks.0.0.weight": [4, 4], "cond_stage_model.transformer.x": [4]})
    typed = os.path.relpath(base, empty) if relative else str(base)
    assert call(monkeypatch, "new", "mimi", "--images", str(elsewhere), "--base", typed, "--yes") == 0
    recipe = loader.recipe(empty / "recipes", "mimi-locon").recipe
    inputs = Workspace(empty).inputs
    assert preflight.outside_paths(recipe, empty) == []
    assert not [problem for problem in model_files.problems(recipe, inputs) if "allow-list" in str(problem)]


def test_a_base_model_is_found_from_where_the_user_stands(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_images(empty / "pictures" / "mimi", VIEWS)
    base = empty.parent / "mine.safetensors"
    write(base, {"model.diffusion_model.input_blocks.0.0.weight": [4, 4], "cond_stage_model.transformer.x": [4]})
    (empty / "recipes").mkdir()
    monkeypatch.chdir(empty / "pictures")
    assert call(monkeypatch, "new", "mimi", "--images", "mimi", "--base", "../../mine.safetensors", "--yes") == 0
    assert loader.recipe(empty / "recipes", "mimi-locon").recipe.base.checkpoint == "../mine.safetensors"
    assert Workspace(empty).inputs.find("../mine.safetensors") is not None


@pytest.mark.parametrize("kind", ["style", "object"])
def test_styles_and_objects_have_parts_of_their_own(empty: Path, kind: str) -> None:
    folder = draw_images(empty / "a", ["x", "y", "z"])
    subject = NewSubject("oils", (folder,), kind, triggers=("oil paint, brushy",), algorithms=("locon",))
    new_subject.write(new_subject.generate(subject, empty), empty)
    recipe = loader.recipe(empty / "recipes", "oils-locon").recipe
    assert (recipe.type, recipe.block_weights) == (kind, None)
    assert recipe.triggers() == ("oil paint, brushy",)
    assert recipe.dataset.sources["oil-paint-brushy"].class_tokens == f"oil paint {kind}"
    assert recipe.render.prompts


def test_the_proposal_states_its_decisions(empty: Path) -> None:
    folder = draw_images(empty / "a", VIEWS, (768, 768))
    notes = " ".join(new_subject.generate(NewSubject("mimi", (folder,), steps=50), empty).notes)
    for words in (
        "50 steps (--steps)",
        "every image 4 times",
        "block weights FACE are baked",
        "BASE = 0",
        "trained as copies 128",
    ):
        assert words in notes


def test_duplicate_and_gray_images_are_reported_at_once(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw_images(empty / "a", VIEWS)
    for seed, name in enumerate(VIEWS):
        face(seed, 512).save(folder / f"{name}.png")
    (folder / "f22_2.png").write_bytes((folder / "f00.png").read_bytes())
    Image.open(folder / "f01.png").convert("L").save(folder / "f01.png")
    assert call(monkeypatch, "new", "mimi", "--images", "a", "--yes") == 0
    output = capsys.readouterr().out
    assert "f22_2.png" in output
    assert "f01.png" in output


def test_the_schema_is_written_beside_the_first_recipe_and_then_stays(empty: Path) -> None:
    folder, file = draw_images(empty / "a", VIEWS), empty / "recipes" / schema.FILE
    new_subject.write(new_subject.generate(NewSubject("mimi", (folder,), algorithms=("locon",)), empty), empty)
    assert file.read_text("utf-8") == schema.dumps()
    file.write_text("{}", "utf-8")
    written = new_subject.write(new_subject.generate(NewSubject("momo", (folder,), algorithms=("locon",)), empty), empty)
    assert file.read_text("utf-8") == "{}"
    assert [path.relative_to(empty).as_posix() for path in written] == [
        "recipes/_subjects/momo.toml",
        "recipes/momo-locon.toml",
    ]


@pytest.mark.parametrize(("architecture", "network"), [("sdxl", None), ("sd2", None), ("anima", {"dim": 16, "alpha": 16})])
def test_a_recipe_states_a_network_where_that_of_the_algorithm_is_for_a_u_net(
    empty: Path, architecture: str, network: dict[str, int] | None
) -> None:
    write(empty / "models" / "mine.safetensors", BASES[architecture])
    folder = draw_images(empty / "a", VIEWS, (1024, 1024))
    generated = new_subject.generate(NewSubject("mimi", (folder,), base="mine.safetensors"), empty)
    text = generated.files[f"{generated.recipes[0]}.toml"]
    table = tomllib.loads(text)
    assert (table.get("network"), "[network]" in text) == (network, network is not None)
    assert table["extends"][2:] == ["_subjects/mimi", f"_base/{architecture}"]
    assert table["unset"][:2] == ["block_weights", "expect"]
    assert table["base"] == {"checkpoint": "mine.safetensors"}
    part = tomllib.loads(generated.files["_subjects/mimi.toml"])
    assert ("base" in part, "base.vae" in part["unset"]) == (False, False)


def test_a_pickled_checkpoint_is_taken_for_sd1(empty: Path) -> None:
    (empty / "models").mkdir()
    (empty / "models" / "old.ckpt").write_bytes(b"x")
    generated = new_subject.generate(NewSubject("mimi", (draw_images(empty / "a", VIEWS),), base="old.ckpt"), empty)
    assert "old.ckpt has no header that tells its architecture: taken for SD1.5" in generated.notes
    part = tomllib.loads(generated.files["_subjects/mimi.toml"])
    assert (part["base"], "base.vae" in part["unset"]) == ({"checkpoint": "old.ckpt"}, True)


@pytest.mark.parametrize(
    ("subject", "problems"),
    [
        (NewSubject("", ()), ["subject ", "--images"]),
        (NewSubject("x" * 60, (Path("a"),)), []),
        (NewSubject("x" * 61, (Path("a"),)), [f"subject {'x' * 61}"]),
        (NewSubject("-x", (Path("a"),)), ["subject -x"]),
        (NewSubject("mimi", (Path("a"),), triggers=("a (b)",)), ["--trigger a (b)"]),
        (NewSubject("mimi", (Path("a"),), triggers=("x" * 120,)), []),
        (NewSubject("mimi", (Path("a"),), triggers=("x" * 121,)), [f"--trigger {'x' * 121}"]),
        (NewSubject("mimi", (Path("a"),), triggers=("a, b c,d",)), []),
        (NewSubject("mimi", (Path("a"), Path("b")), triggers=("a",)), []),
        (NewSubject("mimi", (Path("a"), Path("b")), triggers=("a", "b,c")), []),
        (
            NewSubject("my x", (Path("a"),), "fase", ("!",), ("lora",)),
            ["subject my x", "--trigger !", "--type fase", "--algorithm lora"],
        ),
    ],
)
def test_every_problem_of_the_options_is_named(subject: NewSubject, problems: list[str]) -> None:
    try:
        subject_options.check(subject)
    except RecipeError as error:
        assert [problem.where for problem in error.problems] == problems  # noqa: PT017 - either is right
    else:
        assert problems == []


def test_trigger_words_are_those_given_or_names_of_folders() -> None:
    a, b = Path("x/My Hat!"), Path("y/My Hat")
    cases = (
        (("one", "two"), (a, b), ["one", "two"]),
        ((), (a,), ["mimi"]),
        ((), (a, b, b, Path("z/\u732b")), ["mimi", "myhat", "myhatx", "other"]),
        (("one",), (a, b), ["one", "myhat"]),
    )
    for triggers, folders, words in cases:
        assert subject_options.trigger_words(NewSubject("Mimi", folders, triggers=triggers)) == words


def test_the_steps_and_repeats_of_a_type_have_an_origin() -> None:
    def effort(kind: str, **values: int) -> str:
        return subject_notes.effort(NewSubject("mimi", (Path("a"),), **values), kind)

    assert effort("face") == "1000 steps, every image 4 times an epoch; the part _base/face of the release sets the others"
    assert effort("group").startswith("1600 steps, every image once an epoch; the part _base/group of the release")
    assert effort("face", steps=50, repeats=2).startswith("50 steps (--steps), every image twice an epoch")
    assert effort("style").endswith("the part _base/style of recipes/_base sets the others")


def test_advice_depends_on_images_and_words(empty: Path) -> None:
    few, enough = (inspect_folder.inspect(draw_images(empty / str(count), VIEWS[:count])) for count in (7, 8))
    assert subject_notes.advice([few], ["zqmimi"], reads_clip=True)[0].startswith("7 images are few")
    (note,) = subject_notes.advice([enough], ["zqmimi"], reads_clip=True)
    assert note.startswith("flip_aug mirrors half of the images")
    assert len(subject_notes.advice([few, few], ["zqmimi"], reads_clip=True)) == 1
    common = subject_notes.advice([enough], ["kitten", "zqmimi"], reads_clip=True)
    assert common[0].startswith("the trigger word 'kitten' has a meaning to CLIP already")
    assert len(common) == 2
    assert len(subject_notes.advice([enough], ["kitten"], reads_clip=False)) == 1


@pytest.mark.parametrize(
    ("images", "usual", "sizes", "words"),
    [
        ([(513, 513)], new_subject.SIZES, [128, 192, 256, 384, 512], "the widest image has 513 pixels"),
        ([(512, 512)], new_subject.SIZES, [128, 192, 256, 384], "the widest image has 512 pixels"),
        ([(769, 769)], new_subject.SIZES, [128, 192, 256, 384, 512, 768], None),
        ([(100, 100)], new_subject.SIZES, [], "sizes none, only the originals: the widest image has 100 pixels"),
        ([(1024, 256)], new_subject.SIZES, [256, 384, 512, 768], "the flattest one, 1 : 4.0, needs a height of 64"),
        ([(1024, 1024), (64, 32)], (768,), [768], None),
    ],
)
def test_copies_are_narrower_than_the_widest_image_and_no_flatter_than_a_bucket(
    images: list[tuple[int, int]], usual: tuple[int, ...], sizes: list[int], words: str | None
) -> None:
    notes: list[str] = []
    summary = inspect_folder.FolderSummary(Path("a"), tuple("abcdef"[: len(images)]), tuple(images), {}, {})
    assert new_subject._sizes([summary], usual, notes) == sizes
    why = [note for note in notes if note.startswith("sizes ")]
    assert [words in note for note in why] == [True] if words else why == []
    copies = [note for note in notes if note.startswith("every wider image")]
    assert len(copies) == bool(sizes)
    assert all((", as in the release" in note) == (usual == new_subject.SIZES) for note in copies)
