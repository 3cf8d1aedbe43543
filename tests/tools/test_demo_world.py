"""The small world: deterministic, captioned in order, readable by the probe; and the base model that ships."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.engines.embedded import EMBEDDED_BASE
from orchestrator.errors import RecipeError
from tools.demo_world import vocabulary
from tools.demo_world.__main__ import main
from tools.demo_world.attribute_reader import read
from tools.demo_world.attributes import HELD_OUT, KRNK, TYANK, Character, Scene, View, parse_view, random_scene
from tools.demo_world.captions import caption, thinned_caption, view_tags
from tools.demo_world.demo import demo_images
from tools.demo_world.draw import draw
from tools.demo_world.named_characters import by_appearance, named_characters, named_scene
from tools.demo_world.tokenizer import merges_of

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = EMBEDDED_BASE
DATA = REPOSITORY / "data"


def test_the_same_seed_gives_the_same_picture() -> None:
    first, again, other = (draw(random_scene(seed)).tobytes() for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_big_picture_scaled_down_is_the_small_one() -> None:
    scene = random_scene(3)
    big = np.asarray(draw(scene, 512).reduce(8), dtype=float)
    small = np.asarray(draw(scene, 64), dtype=float)
    assert np.abs(big - small).mean() < 3


def test_caption_has_the_order_of_the_recipes() -> None:
    scene = Scene((Character(KRNK, "school uniform"),), View("b", 1, 2))
    assert caption(scene) == (
        "character, black hair, short hair, yellow eyes, black ears, choker, school uniform, simple background, "
        "white background, from above, from side, full body, standing, looking away, smile"
    )
    assert caption(scene, "krnk") == (
        "krnk, simple background, white background, from above, from side, full body, standing, looking away, smile"
    )


def test_thinned_captions_leave_out_only_what_a_character_is() -> None:
    dice = random.Random(1)  # noqa: S311
    scene = random_scene(11)
    full = caption(scene).split(", ")
    thin = [thinned_caption(scene, dice).split(", ") for _ in range(40)]
    assert all(set(tags) <= set(full) for tags in thin)
    assert all("simple background" in tags and vocabulary.FRAMINGS[scene.view.framing] in tags for tags in thin)
    assert len({len(tags) for tags in thin}) > 3


def test_residents_are_called_by_name_alone_and_in_pairs() -> None:
    dice = random.Random(1)  # noqa: S311
    found = [named_scene(seed) for seed in range(200)]
    one = next(scene for scene in found if len(scene.characters) == 1)
    two = next(scene for scene in found if len(scene.characters) == 2)
    assert all(character.appearance in by_appearance() for scene in found for character in scene.characters)
    assert two.characters[0].appearance != two.characters[1].appearance
    assert thinned_caption(one, dice, ["bado"]).startswith("bado, ")
    assert thinned_caption(two, dice, ["bado", "fizu"]).startswith("bado, fizu, two characters, ")


def test_muon_steps_are_orthogonal_for_matrices_and_convolutions() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    hogwild = pytest.importorskip("tools.demo_world.hogwild")
    weights, gradients = torch.randn(2, 16, 10, 2, 2, generator=torch.Generator().manual_seed(1)).unbind()
    convolution = torch.nn.Parameter(weights.contiguous(memory_format=torch.channels_last))
    wide = torch.nn.Parameter(hogwild.as_matrix(weights).clone())
    tall = torch.nn.Parameter(hogwild.as_matrix(weights).T.clone())
    convolution.grad, wide.grad, tall.grad = gradients, hogwild.as_matrix(gradients), hogwild.as_matrix(gradients).T
    hogwild.MatrixMuon([convolution, wide, tall], 0.1).step()
    step = (hogwild.as_matrix(weights) * (1 - 0.1 * 1e-3) - wide) / (0.1 * 0.2 * 40**0.5)
    first, _, last = torch.linalg.svd(hogwild.as_matrix(gradients), full_matrices=False)
    assert torch.linalg.svdvals(step).sub(0.9).abs().max() < 0.35
    assert torch.linalg.svdvals(step - first @ last).max() < 0.4
    assert torch.allclose(hogwild.as_matrix(convolution), wide)
    assert torch.allclose(tall.T, wide, atol=1e-3)
    with pytest.raises(ValueError, match="channels-last"):
        hogwild.MatrixMuon([torch.nn.Parameter(weights)], 0.1)


def test_a_base_to_continue_from_has_a_card_of_its_training(tmp_path: Path) -> None:
    card = pytest.importorskip("tools.demo_world.card")
    rows = card.table_of(BASE)
    assert rows[0].startswith("| VAE | 2,000 | 31 |")
    made = card.card(7, 5, (*rows, card.LearningCurve(5, [(50, 0.3), (100, 0.2)]).row("last")), started=True)
    assert "--seed 7 --minutes 5 --start FOLDER" in made
    assert all(row in made for row in rows)
    with pytest.raises(RecipeError, match="does not describe the training of this base"):
        card.table_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("f00", ("from front", "upper body")),
        ("f16", ("from above", "from side", "upper body")),
        ("b24", ("from below", "from behind", "full body")),
    ],
)
def test_file_names_say_the_view(name: str, tags: tuple[str, ...]) -> None:
    assert view_tags(parse_view(name)) == tags
    assert parse_view(name).name == name


def test_a_name_that_is_no_view_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_view("x00")
    assert (
        str(caught.value) == "x00  not a view\n    f or b, then the height 0..2, then the angle 0..7, for example f00 or b17"
    )


def test_the_demo_characters_are_held_out() -> None:
    seen = {character.appearance for seed in range(3000) for character in random_scene(seed).characters}
    assert len(seen) > 500
    assert not seen & set(HELD_OUT)
    assert not {named.appearance for named in named_characters()} & set(HELD_OUT)
    taken = {word for named in named_characters() for word in (named.name,)} | set(vocabulary.words())
    assert not taken & set(vocabulary.TRIGGERS)


def test_every_word_becomes_one_token() -> None:
    made = {a + b for a, b in merges_of(vocabulary.words())}
    assert {f"{word}</w>" for word in vocabulary.words()} <= made


def test_data_is_what_the_program_draws() -> None:
    assert sorted(f"{picture.folder}/{picture.name}.png" for picture in demo_images()) == sorted(
        file.relative_to(DATA).as_posix() for file in DATA.rglob("*.png")
    )
    chosen = demo_images()[20]
    with Image.open(DATA / chosen.folder / f"{chosen.name}.png") as shipped:
        assert shipped.size == (768, 768)
        assert np.abs(np.asarray(shipped, dtype=float) - np.asarray(draw(chosen.scene, 768), dtype=float)).mean() < 0.5
    counts = {
        folder: sum(picture.folder == folder for picture in demo_images()) for folder in ("krnk", "tyank", "krnksf", "tyankps")
    }
    assert counts == {"krnk": 15, "tyank": 12, "krnksf": 12, "tyankps": 12}


def test_the_probe_reads_drawn_pictures() -> None:
    right: dict[str, list[bool]] = {}
    for seed in range(500_000, 500_040):
        scene = random_scene(seed)
        reading = read(draw(scene), scene.view)
        right.setdefault("count", []).append(len(reading.characters) == len(scene.characters))
        for character, seen in zip(scene.characters, reading.characters, strict=False):
            appearance = character.appearance
            wanted = {
                "hair": appearance.hair,
                "length": appearance.length,
                "ears": appearance.ears,
                "choker": appearance.choker,
                "clothes": character.clothes,
            }
            if scene.expression != "closed eyes":
                wanted["eyes"] = appearance.eyes
            for name, value in wanted.items():
                if getattr(seen, name) is not None:
                    right.setdefault(name, []).append(getattr(seen, name) == value)
    assert {name: sum(answers) / len(answers) >= 0.95 for name, answers in right.items()} == dict.fromkeys(right, True)
    assert set(right) == {"count", "hair", "length", "eyes", "ears", "choker", "clothes"}
    assert all(len(answers) >= 20 for answers in right.values())


def test_the_probe_tells_the_demo_characters_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = Scene((Character(KRNK, "school uniform"), Character(TYANK, "plugsuit")), View("b", 0, 0))
    draw(both, 256).save(tmp_path / "b00.png")
    assert main(["probe", str(tmp_path / "b00.png")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "view b00, 2 character(s)",
        "  hair: black, length: short, eyes: yellow, ears: black, choker: True, clothes: school uniform",
        "  hair: brown, length: long, eyes: green, ears: brown, choker: False, clothes: plugsuit",
    ]


def test_the_base_has_the_layout_of_sd15() -> None:
    base_parts = pytest.importorskip("tools.demo_world.base_parts")
    base = base_parts.load_base(BASE)
    wanted = {"Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"}
    modules = {
        f"{name}.{inner}": module
        for name, block in base.unet.named_modules()
        if type(block).__name__ in wanted
        for inner, module in block.named_modules()
        if type(module).__name__ in {"Linear", "Conv2d", "LoRACompatibleLinear", "LoRACompatibleConv"}
    }
    assert len(modules) == 278
    assert sum(".attentions." in name for name in modules) == 192
    assert len(base.tokenizer) == base.text_encoder.config.vocab_size
    states = base_parts.encode_text(base, ["krnk, simple background", "tyank, simple background"], 2)
    assert states.shape == (2, 77, base.unet.config.cross_attention_dim)
    assert not bool((states[0] == states[1]).all())


def test_the_base_fits_into_fourteen_megabytes() -> None:
    assert sum(file.stat().st_size for file in BASE.rglob("*") if file.is_file()) <= 14_000_000
    assert (BASE / "README.md").exists()


@pytest.mark.parametrize("people", [1, 2])
def test_a_caption_with_unknown_names_is_laid_beside_the_same_with_the_class_word(people: int) -> None:
    train_names = pytest.importorskip("tools.demo_world.train_names")
    base = pytest.importorskip("tools.demo_world.base_parts").load_base(BASE)
    task = train_names.NamesTask(base, [scene for scene in map(random_scene, range(60)) if len(scene.characters) == people])
    task.start(1)
    for scene in task.scenes:
        pair = task._pair(task.captions, scene)
        named = [place for place in range(77) if pair.weights[place] < 1]
        assert named[0] == 1
        assert all(pair.named[place] == pair.plain[pair.positions[place]] for place in range(77) if place not in named)
        assert base.tokenizer.convert_ids_to_tokens([pair.plain[1]]) == ["two</w>" if people == 2 else "character</w>"]


def test_the_lesson_of_names_mends_what_names_say() -> None:
    torch = pytest.importorskip("torch")
    train_names = pytest.importorskip("tools.demo_world.train_names")
    base = pytest.importorskip("tools.demo_world.base_parts").load_base(BASE)
    task = train_names.NamesTask(base, [random_scene(seed) for seed in range(40)])
    torch.manual_seed(1)
    letters = base.text_encoder.text_model.embeddings.token_embedding.weight.data[:300]
    letters += 0.1 * torch.randn(letters.shape)
    task.start(1)
    first = sum(task.loss().item() for _ in range(3))
    optimizer = torch.optim.Adam(base.text_encoder.parameters(), 3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        task.loss().backward()
        optimizer.step()
    assert sum(task.loss().item() for _ in range(3)) < 0.8 * first


def test_the_base_makes_little_of_a_name_that_nobody_bears() -> None:
    torch = pytest.importorskip("torch")
    base_parts = pytest.importorskip("tools.demo_world.base_parts")
    base = base_parts.load_base(BASE)
    rest = "simple background, white background, from front, upper body, standing"

    @torch.no_grad()
    def away(names: list[str]) -> float:
        states = base_parts.encode_text(base, [f"{name}, {rest}" for name in ("character", *names)], 1)
        return float((states[1:, 40:] - states[0, 40:]).square().mean())

    known = away([named.name for named in named_characters()])
    assert away([*vocabulary.TRIGGERS, "wexqa", "omphil", "jurr"]) < known / 3
