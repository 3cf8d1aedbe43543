"""Find the architecture of a new recipe's base model, and its part."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.dataset.lint import token_limits
from orchestrator.errors import Problem, RecipeError
from orchestrator.models.registry import ARCHITECTURES, DEFAULT
from orchestrator.recipe import compose
from orchestrator.run import model_headers

if TYPE_CHECKING:
    from orchestrator.models.architecture import Architecture
    from orchestrator.plan.inputs import ProjectInputs


@dataclass(frozen=True, slots=True)
class NewBase:
    """The base model of new recipes."""

    table: dict[str, Any]
    """The table [base] of the recipes."""
    part: str = ""
    """Part of the architecture, which follows the subject. Empty: the subject's own settings hold."""
    algorithms: tuple[str, ...] = ()
    """Algorithms that train it. Empty: all."""
    network: dict[str, Any] = field(default_factory=dict)
    """The table [network] of the recipes, where that of an algorithm is for a U-Net."""
    unset: tuple[str, ...] = ()
    """Keys of the part that do not hold for this model."""
    reads_clip: bool = True
    """CLIP reads the captions, so that its knowledge of a trigger word counts."""
    sizes: tuple[int, ...] = ()
    """Widths in pixels to which the part scales images down. Empty: those of the release."""
    note: str = ""


def of(name: str, inputs: ProjectInputs) -> NewBase:
    """Return the base model of a file name, by the header of the file.

    Raises:
        RecipeError: there is no such file, or it is not a base model of a known architecture.
    """
    where, path = f"--base {name}", inputs.find(name)
    if path is None:
        folders = ", ".join(map(str, inputs.model_folders()[:4]))
        hint = f"put it into {inputs.root / 'models'}, or name your model folders in $KRNK_MODELS; searched: {folders} …"
        if (whole := inputs.find(f"{name}.safetensors")) is not None:
            hint = f"did you mean {whole.name}?"
        raise RecipeError(Problem(where, "not found: the file tells the architecture", hint))
    architecture, prediction, title = model_headers.whole_checkpoint(path)
    if architecture is None and path.suffix.lower() != ".safetensors" and path.is_file():
        note = f"{path.name} has no header that tells its architecture: taken for {ARCHITECTURES[DEFAULT].title}"
        return NewBase({"checkpoint": name}, note=note)
    if architecture is None:
        titles = ", ".join(entry.title for entry in ARCHITECTURES.values())
        what = f"{path} is {title or 'not the checkpoint of a known architecture'}"
        raise RecipeError(Problem(where, what, f"name a whole checkpoint of {titles}"))
    entry = ARCHITECTURES[architecture]
    table: dict[str, Any] = {"checkpoint": name}
    if architecture == DEFAULT:
        return NewBase(table, note=f"{path.name} is {entry.title}")
    part = _part(entry, prediction)
    if not part:
        raise RecipeError(Problem(where, f"{path} is {entry.title}, for which there is no part in recipes/_base", ""))
    settings = _read(part)
    if settings.get("base", {}).get("architecture", architecture) != architecture:
        table["architecture"] = architecture
    transformer = not entry.model.targets.convolutions
    algorithms, network = (("lora1x1",), {"dim": 16, "alpha": 16}) if transformer else ((), {})
    unset = tuple(f"training.{key}" for key in settings.get("training", {}) if key in entry.ignored_options)
    reads_clip = token_limits.reads_clip(architecture)
    words = ", which predicts v by its header" if prediction == "v" else ""
    # No header of SD2 tells its prediction.
    other = f"; if it predicts v, extend {_part(entry, 'v')} in its place" if entry.v_prediction[1] and not prediction else ""
    return NewBase(
        table,
        part,
        algorithms,
        network,
        unset,
        reads_clip,
        sizes=tuple(_first(settings, "dataset", "sizes") or ()),
        note=f"{path.name} is {entry.title}{words}: the recipes extend {part}{other}",
    )


def _read(part: str) -> dict[str, Any]:
    return tomllib.loads((compose.library() / f"{part}.toml").read_text("utf-8"))


def _first(part: dict[str, Any], table: str, key: str) -> Any:
    """Return a value of a part, or of the first of its parents with one."""
    parents = (_read(name) for name in part.get("extends", []))
    return next((each[table][key] for each in (part, *parents) if key in each.get(table, {})), None)


def _part(entry: Architecture, prediction: str) -> str:
    """Return the part of an architecture, or of another size of it, or ""."""
    best = ("", 0)
    for path in sorted((compose.library() / "_base").glob("*.toml")):
        table = tomllib.loads(path.read_text("utf-8"))
        named = _first(table, "base", "architecture")
        if named not in ARCHITECTURES or ARCHITECTURES[named].trainer_script != entry.trainer_script:
            continue
        velocity = bool(table.get("training", {}).get("options", {}).get("v_parameterization"))
        score = 1 + 2 * (named == entry.name) + 4 * (velocity == (prediction == "v"))
        same_family = ARCHITECTURES[named].network_module == entry.network_module
        same_files = {file.option for file in ARCHITECTURES[named].files} == {file.option for file in entry.files}
        if same_family and same_files and score > best[1] and ARCHITECTURES[named].trainer_switches == entry.trainer_switches:
            best = (f"_base/{path.stem}", score)
    return best[0]
