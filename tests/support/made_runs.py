"""Small real runs of the project's recipes.

Their LoRA files are tiny and have real names, their images are drawn.

Nothing is trained here; what the release and the report read is written to disk in the store's own form, and the release
and grid programs then really run on it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from orchestrator.dataset.build import build
from orchestrator.models import blocks
from orchestrator.recipe import loader
from orchestrator.release import __main__ as release
from orchestrator.release import grid
from orchestrator.run.store import Record

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
STARTED = 1_680_000_000.0
INKS = {"krnk": (44, 40, 52), "tyank": (150, 92, 54), "krnksf": (52, 72, 148), "tyankps": (0, 176, 170)}

# Modules of SD1.5 in several blocks, by the names that sd-scripts and LyCORIS give them.
LINEAR = [
    "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_down_blocks_2_attentions_1_transformer_blocks_0_attn2_to_k",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_ff_net_2",
    "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_v",
]
CONV = ["lora_unet_down_blocks_0_resnets_0_conv1", "lora_unet_up_blocks_2_resnets_1_conv2"]


@functools.cache
def recipes() -> list[loader.Loaded]:
    """Return the project's 15 recipes."""
    root = ROOT / "recipes"
    return loader.recipes(root, loader.names(root))


def loaded(name: str) -> loader.Loaded:
    return next(each for each in recipes() if each.recipe.name == name)


def lora(path: Path, recipe: Recipe, rank: int = 4, weights: tuple[float, ...] | None = None) -> Path:
    """Write a tiny LoRA of the recipe's family.

    ``weights`` zero the blocks that have weight 0.
    """
    dice = np.random.default_rng(7)
    tensors: dict[str, np.ndarray] = {}

    def some(*shape: int) -> np.ndarray:
        return (dice.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float16)

    for name in LINEAR + CONV:
        conv = name in CONV
        tensors[f"{name}.alpha"] = np.asarray(rank / 2, np.float16)
        if recipe.network.family == "loha":
            tensors[f"{name}.hada_w1_a"], tensors[f"{name}.hada_w1_b"] = some(32, rank), some(rank, 24)
            tensors[f"{name}.hada_w2_a"], tensors[f"{name}.hada_w2_b"] = some(32, rank), some(rank, 24)
        elif conv and recipe.network.tucker:
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = some(rank, 24, 1, 1), some(32, rank, 1, 1)
            tensors[f"{name}.lora_mid.weight"] = some(rank, rank, 3, 3)
        elif conv:
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = some(rank, 24, 3, 3), some(32, rank, 1, 1)
        else:
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = some(rank, 24), some(32, rank)
    if weights is not None:
        order = dict(
            zip(("BASE", *(f"IN{n:02}" for n in range(12)), "MID", *(f"OUT{n:02}" for n in range(12))), weights, strict=True)
        )
        for key, tensor in tensors.items():
            if (
                not key.endswith((".alpha", "hada_w1_b", "lora_down.weight"))
                and order[blocks.block_of(key.partition(".")[0]) or "BASE"] == 0
            ):
                tensors[key] = np.zeros_like(tensor)
    metadata = {
        "ss_network_module": "networks.lora" if recipe.network.family == "lora" else "lycoris.kohya",
        "ss_network_dim": str(recipe.network.dim),
        "ss_network_args": json.dumps({"conv_dim": "128", "preset": "/home/someone/runs/krnk/preset.toml"}),
        "ss_tag_frequency": json.dumps({"krnk character_f0128": {"krnk": 15, "white background": 15}}),
        "ss_dataset_dirs": json.dumps({"krnk character_f0128": {"n_repeats": 4, "img_count": 15}}),
        "ss_sd_model_name": "/home/someone/models/Defmix-v2.0.safetensors",
        "ss_steps": str(recipe.training.steps),
        "ss_epoch": "9",
        "modelspec.implementation": "diffusers",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    return path


def picture(path: Path, subject: str, number: int, side: int = 128) -> None:
    """Draw a small round face with ears, different for each prompt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas = Image.new(
        "RGB", (side * 2, side * 2), [(255, 255, 255), (188, 222, 250), (252, 208, 222), (200, 238, 196)][number % 4]
    )
    pen = ImageDraw.Draw(canvas)
    for index, name in enumerate(subject.split("_")):
        ink = INKS[name]
        x = side * (0.5 + index) if "_" in subject else side
        x += (number - 3) * side * 0.05
        r = side * 0.42 if "_" in subject else side * 0.6
        y = side * 1.15
        for way in (-1, 1):
            pen.polygon(
                [(x + way * r * 0.9, y - r * 0.3), (x + way * r * 0.75, y - r * 1.35), (x + way * r * 0.1, y - r * 0.9)],
                fill=ink,
            )
        pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)
        pen.ellipse((x - r * 0.8, y - r * 0.55, x + r * 0.8, y + r * 0.95), fill=(255, 226, 204))
        for way in (-1, 1):
            pen.ellipse((x + way * r * 0.4 - r * 0.13, y, x + way * r * 0.4 + r * 0.13, y + r * 0.36), fill=(60, 140, 80))
        pen.arc((x - r * 0.2, y + r * 0.4, x + r * 0.2, y + r * 0.65), 20, 160, fill=(196, 72, 72), width=3)
    canvas.resize((side, side), Image.Resampling.LANCZOS).save(path)


def record(folder: Path, name: str, kind: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Write record.json beside the files of ``folder``."""
    outputs = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            outputs[path.relative_to(folder).as_posix()] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    value: dict[str, Any] = {
        "schema": 1,
        "key": key(name),
        "kind": kind,
        "name": name,
        "params": params,
        "sources": {"checkpoint": "a" * 64, "vae": "b" * 64} if kind in ("train", "render") else {},
        "inputs": {},
        "outputs": outputs,
        "argv": ["python", "-m", f"orchestrator.{kind}", "/home/someone/project/runs/request.json"],
        "started": STARTED,
        "seconds": 12.5,
        "resumed_from": None,
        "attempts": 1,
        "changes": {},
        "engine": "sd-scripts ae72efb92babe89ff8e70f057e42db68440e8d61",
        "host": {"node": "someones-machine", "system": "Linux", "python": "3.11.7", "cpus": 2},
        "lane": "gpu" if kind in ("train", "render") else "cpu",
        "slot": "gpu 0" if kind in ("train", "render") else "cpu 0",
        "waited": 0.1,
    }
    value |= more
    assert set(value) == {field.name for field in dataclasses.fields(Record)} - {"linked"}
    (folder / "record.json").write_text(json.dumps(value), "utf-8")
    return value


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def folder(runs: Path, name: str) -> Path:
    owner, _, kind = name.rpartition("/")
    path = runs / owner / f"{kind}-{key(name)[:12]}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def dataset(runs: Path, recipe: Recipe) -> Path:
    """Write a built dataset with its manifest, as the dataset step leaves it."""
    target = folder(runs, f"{recipe.dataset.name}/dataset")
    if (target / "record.json").exists():
        return target
    originals = runs / ".originals"
    for source in recipe.dataset.sources:
        for number in range(3):
            picture(originals / source / f"f{number}0.png", source, number, 96)
    sources = {name: source.model_copy(update={"images": name}) for name, source in recipe.dataset.sources.items()}
    build(recipe.dataset.model_copy(update={"sources": sources, "sizes": (64,)}), originals, target, lambda *_: None)
    params = recipe.dataset.model_dump(mode="json")
    record(target, f"{recipe.dataset.name}/dataset", "dataset", params, sources={"krnk/f00.png": "c" * 64}, engine="")
    return target


def train(runs: Path, recipe: Recipe) -> Path:
    target = folder(runs, f"{recipe.name}/train")
    lora(target / f"{recipe.name}.safetensors", recipe)
    steps = recipe.training.steps
    own = int(key(recipe.name)[:2], 16)  # no two recipes have one curve
    lines = []
    for done in range(1, steps + 1, max(1, steps // 120)):
        noise = math.sin((done + own) * 12.9898) * 0.012
        loss = 0.09 + 0.09 * math.exp(-done / steps * 4) + noise + own / 10_000
        rate = 1e-4 * (1 + math.cos(math.pi * done / steps)) / 2
        line = {"t": round(done * 0.05, 3), "done": done, "total": steps, "loss": round(loss, 5), "lr": rate, "note": ""}
        if len(lines) % 12 == 11:
            line["validation_loss"] = round(loss * 1.1 + 0.01, 5)
        line |= {"current_loss": round(loss * (1 + 0.4 * math.sin(done * 7.1)), 5), "lr_text_encoder": rate * 0.44}
        lines.append(json.dumps(line))
    (target / "progress.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    params = {
        "base": {"architecture": recipe.base.architecture, "clip_skip": recipe.base.clip_skip},
        "network": recipe.network.model_dump(mode="json"),
        "training": recipe.training.model_dump(mode="json"),
        "retry": [],
    }
    record(target, f"{recipe.name}/train", "train", params, seconds=84.0)
    return target


def render(runs: Path, recipe: Recipe) -> Path:
    target = folder(runs, f"{recipe.name}/render")
    for number, name in enumerate(recipe.render.prompts):
        picture(target / f"{name}.png", recipe.subject, number)
    record(target, f"{recipe.name}/render", "render", {"render": recipe.render.model_dump(mode="json")}, seconds=31.0)
    return target


def variants(runs: Path, recipe: Recipe, ratios: tuple[int, ...] = (64, 16)) -> Path:
    """Write the files of ``orchestrator variants``: pictures, grid, list.

    The pictures are the recipe's at several ratios.
    """
    heads = [grid.GridColumn(**column) for column in recipe.columns()]
    drawn = []
    for step, ratio in enumerate(ratios):
        images = folder(runs, f"{recipe.name}/ratio{ratio}")
        for number, column in enumerate(heads):
            picture(images / f"{column.name}.png", recipe.subject, number + step)
        drawn.append({"label": f"sv_ratio {ratio}", "bytes": ratio * 2**20, "folder": str(images.relative_to(runs))})
    target = runs / recipe.name / "variants"
    target.mkdir()
    rows = [grid.GridRow(each["label"], runs / each["folder"]) for each in drawn]
    grid.write(target, "sv_ratio", rows, heads)
    text = json.dumps({"axes": ["sv_ratio"], "variants": drawn, "grids": ["sv_ratio_grid.png"]})
    (target / "sv_ratio.json").write_text(text, "utf-8")
    return target


def request(runs: Path, recipe: Recipe) -> dict[str, Any]:
    """Make all steps before a release, and return the release's request."""
    folders = {"dataset": dataset(runs, recipe), "train": train(runs, recipe)}
    last = folders["train"]
    if recipe.block_weights is not None:
        weights = recipe.weights().values
        target = folders["merge"] = folder(runs, f"{recipe.name}/merge")
        lora(target / f"{recipe.name}.safetensors", recipe, weights=tuple(weights))
        params = {"block_weights": list(weights), "architecture": "sd1", **recipe.merge.model_dump(mode="json")}
        record(target, f"{recipe.name}/merge", "merge", params, seconds=0.7)
        last = target
    if recipe.resize is not None:
        target = folders["resize"] = folder(runs, f"{recipe.name}/resize")
        lora(target / f"{recipe.name}.safetensors", recipe, rank=2, weights=tuple(weights))
        record(target, f"{recipe.name}/resize", "resize", recipe.resize.model_dump(mode="json"), seconds=2.4)
        last = target
    folders["render"] = render(runs, recipe)
    return {
        "kind": "recipe",
        "output": str(folder(runs, f"{recipe.name}/release")),
        "recipe": recipe.model_dump(mode="json"),
        "lora": str(last / f"{recipe.name}.safetensors"),
        "images": str(folders["render"]),
        "columns": recipe.columns(),
        "folders": {kind: str(path) for kind, path in folders.items()},
        "scale": 2,
    }


def call(program: Any, path: Path, values: dict[str, Any]) -> int:
    """Write a request and run a program on it, in this process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), "utf-8")
    return int(program.main([str(path)]))


def released(runs: Path, name: str) -> Path:
    """Make everything of one recipe, and return its release folder."""
    recipe = loaded(name).recipe
    values = request(runs, recipe)
    assert call(release, runs / ".requests" / f"{name}.json", values) == 0
    target = Path(values["output"])
    record(target, f"{name}/release", "release", {"recipe": values["recipe"]}, seconds=0.9)
    return target


def subject_grid(runs: Path, subject: str, names: list[str]) -> Path:
    target = folder(runs, f"{subject}/grid")
    members = [loaded(name).recipe for name in names]
    rows = [{"label": recipe.algorithm, "folder": str(folder(runs, f"{recipe.name}/render"))} for recipe in members]
    values = {
        "output": str(target),
        "name": subject,
        "rows": rows,
        "columns": members[0].columns(),
        "title": subject,
        "scale": 2,
    }
    assert call(grid, runs / ".requests" / f"{subject}.json", values) == 0
    record(target, f"{subject}/grid", "render", {}, seconds=0.4)
    return target


def collection(runs: Path, names: list[str]) -> Path:
    """Make a collection of several recipes, with the grid of every subject."""
    members = [{"recipe": loaded(name).recipe.model_dump(mode="json"), "folder": str(released(runs, name))} for name in names]
    subjects: dict[str, list[str]] = {}
    for name in names:
        subjects.setdefault(loaded(name).recipe.subject, []).append(name)
    grids = [str(subject_grid(runs, subject, group)) for subject, group in subjects.items()]
    target = folder(runs, "krnk_tyank/release")
    values = {"kind": "collection", "output": str(target), "name": "krnk_tyank", "members": members, "grids": grids}
    assert call(release, runs / ".requests" / "collection.json", values) == 0
    record(target, "krnk_tyank/release", "release", {"name": "krnk_tyank", "members": names}, seconds=3.0)
    return target


def plan_json(runs: Path) -> dict[str, Any]:
    """Return the output of ``plan --json``: a step with a record is done."""

    def step(name: str, kind: str) -> dict[str, Any]:
        owner, _, last = name.rpartition("/")
        done = (runs / owner / f"{last}-{key(name)[:12]}" / "record.json").exists()
        status, reason = ("cached", "") if done else ("run", "new")
        return {"name": name, "kind": kind, "key": key(name), "lane": "cpu", "status": status, "reason": reason}

    recipes_ = []
    for each in recipes():
        recipe = each.recipe
        kinds = ["train", "merge", *(["resize"] if recipe.resize else []), "render", "release"]
        steps = [step(f"{recipe.dataset.name}/dataset", "dataset"), *(step(f"{recipe.name}/{kind}", kind) for kind in kinds)]
        predicted = {"tensor_bytes": recipe.expect.tensor_bytes, "modules": 350, "train_steps": recipe.training.steps}
        recipes_.append(
            {"name": recipe.name, "steps": steps, "predicted": predicted | {"epochs": 10, "images": 105, "disk_bytes": 1}}
        )
    subjects = dict.fromkeys(each.recipe.subject for each in recipes())
    grids = [step(f"{subject}/grid", "render") for subject in subjects]
    return {"recipes": recipes_, "shared": [*grids, step("krnk_tyank/release", "release")]}
