"""Compare imports with the values that the other program passes to its trainer.

    python tests/support/import_truth.py CHECKOUT FILE...

CHECKOUT is a clone of bmaltais/kohya_ss, of LoRA_Easy_Training_scripts_Backend (with SD_SCRIPTS_DIR) or of
Akegarasu/lora-scripts. Their own code runs. Each option has to be the same in the exported recipe, or stand in the notes as
changed or lost; each value of the file has one note; `show` and `plan` accept the recipe.
"""

from __future__ import annotations

import ast
import logging
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import import_truth_kohya  # noqa: E402
import import_truth_lora_easy  # noqa: E402
import import_truth_lora_scripts  # noqa: E402
from orchestrator.engines.sdscripts import parser_options  # noqa: E402
from orchestrator.errors import RecipeError  # noqa: E402
from orchestrator.importers import reader, to_recipe  # noqa: E402
from orchestrator.run import export_sd_scripts  # noqa: E402
from orchestrator.run.workspace import Selection, Workspace  # noqa: E402

if TYPE_CHECKING:
    from import_truth_files import Passed

HERE = {
    *("output_dir", "logging_dir", "dataset_config", "output_name", "log_with", "log_prefix", "save_model_as"),
    *(
        "train_data_dir",
        "reg_data_dir",
        "caption_extension",
        "wandb_run_name",
        "sample_every_n_steps",
        "sample_every_n_epochs",
    ),
    *("save_last_n_steps_state", "save_last_n_epochs_state"),  # of a recipe's keep_states
    *("sample_sampler", "sample_prompts", "pretrained_model_name_or_path", "vae", "qwen3"),
}
"""Options that each program sets for itself, those of samples, which need the prompts of a recipe, and names of files."""
DEFAULTS = {"max_token_length": 75, "clip_skip": 1}
"""Values of sd-scripts for None."""
ALIASES = {  # option -> names of the settings that become it
    "max_train_epochs": ("epoch", "max_train_epochs", "max_train_steps"),
    "max_train_steps": ("epoch", "max_train_epochs", "max_train_steps"),
    "optimizer_type": ("optimizer",),
    "sdpa": ("xformers", "attention", "mem_eff_attn"),
    "resolution": ("max_resolution",),
    "network_dim": ("the network", "algo"),
    "network_module": ("the network", "LoRA_type", "algo", "fa", "unit", "lycoris_algo"),
    **dict.fromkeys(("lr_scheduler", "lr_scheduler_num_cycles", "lr_scheduler_args"), ("lr_scheduler_type",)),
    "text_encoder_lr": ("t5xxl_lr",),
    **dict.fromkeys(
        ("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk"),
        tuple(f"{word}_cache_text_encoder_outputs" for word in ("sdxl", "flux1", "sd3", "anima", "lumina")),
    ),
    "network_dropout": ("dropout",),
    "cache_latents": ("cache_latents_to_disk",),
    "lr_warmup_steps": ("warmup_ratio", "lr_warmup"),
    "train_batch_size": ("batch_size",),
}
NOTHING = (("preset", "full"), ("factor", "-1"))
FAMILY = ("algo", "LoRA_type", "unit", "fa", "network_module")
"""Settings that choose the family. Where it is another one, ranks of convolutions are its own."""
RENAMED = {
    "preset": "LyCORIS_preset",
    "algo": "LoRA_type",
    "constraint": "constrain",
    "block_size": "unit",
    "use_tucker": "use_cp",
}
SUBSET = (
    "num_repeats",
    "flip_aug",
    "keep_tokens",
    "shuffle_caption",
    "color_aug",
    "random_crop",
    "is_reg",
    "caption_dropout_rate",
    "caption_tag_dropout_rate",
    "caption_dropout_every_n_epochs",
)
"""Values of subsets; those of the first stand for all where a program passes options only."""
PROGRAMS = {
    import_truth_kohya.MARK: import_truth_kohya.KohyaSS,
    import_truth_lora_easy.MARK: import_truth_lora_easy.LoraEasy,
    import_truth_lora_scripts.MARK: import_truth_lora_scripts.LoraScripts,
}


def exported(path: Path, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, str], int]:
    """Return options, subsets, the notes that are not "kept", and the number of leaves.

    Raises:
        RecipeError: the import, `show` or `plan` refuses.
    """
    (settings,) = reader.read(str(path))
    imported = to_recipe.recipe(settings, "imported")
    counts = Counter(note.name for note in imported.notes)
    if wrong := [leaf for leaf in settings.leaves if counts[leaf] != 1]:
        raise AssertionError(f"without one note: {wrong}")
    imported.write(folder / "recipes" / "imported.toml")
    space = Workspace(folder)
    loaded = space.load(Selection(("imported",)), need_steps=True)
    space.plan(loaded)
    files = export_sd_scripts.sd_scripts(loaded[0].recipe, space.inputs, folder / "out")
    table, dataset = (tomllib.loads(files[name]) for name in (export_sd_scripts.TRAIN, export_sd_scripts.DATASET))
    groups = dataset.get("datasets") or [{}]
    table |= dataset["general"] | {"resolution": groups[0].get("resolution"), "train_batch_size": groups[0].get("batch_size")}
    subsets = [{**dataset["general"], **group, **subset} for group in groups for subset in group.get("subsets", [])]
    table |= {"flip_aug": subsets[0]["flip_aug"]} if subsets else {}
    notes = {
        note.name.rpartition(".")[2].removeprefix("--"): str(note) for note in imported.notes if note.disposition != "kept"
    }
    notes |= {name.partition(" ")[0]: text for name, text in notes.items()}  # of folders that do not set it
    return table, subsets, notes, len(settings.leaves)


def meant(passed: Passed) -> dict[str, Any]:
    """Return the options as the trainer takes them: what overrides what, and values of subsets that hold for all."""
    options = dict(passed.options)
    for name in {name for subset in passed.subsets for name in subset} - set(SUBSET):
        values = [subset.get(name) for subset in passed.subsets]
        if all(value == values[0] for value in values):
            options[name] = values[0]
    options["cache_latents"] = options.get("cache_latents") or options.get("cache_latents_to_disk")
    if passed.script not in (
        "train_network.py",
        "sdxl_train_network.py",
    ):  # of those scripts, the second switch sets the first
        options["cache_text_encoder_outputs"] = options.get("cache_text_encoder_outputs") or options.get(
            "cache_text_encoder_outputs_to_disk"
        )
    dropout = [text[8:] for text in options.get("network_args") or [] if str(text).startswith("dropout=")]
    if dropout and options.get("network_module") == "lycoris.kohya":  # the same there
        options["network_dropout"] = dropout[0]
        options["network_args"] = [text for text in options["network_args"] if not text.startswith("dropout=")]
    rates = options.get("text_encoder_lr")
    if passed.script.startswith("sd3_") and isinstance(rates, list) and len(rates) == len(("clip_l", "others")):
        options["text_encoder_lr"] = [*rates, rates[1]]  # networks/lora_sd3.py
    args = options.get("network_args") or []
    if options.get("network_module") == "lycoris.kohya" and not any("conv_dim=" in text for text in args):
        options["network_args"] = [*args, f"conv_dim={options.get('network_dim', 4)}"]
    if options.get("max_train_epochs") is not None:
        options.pop("max_train_steps", None)
    return options


def arguments(side: Any) -> dict[str, str]:
    """Return network_args without those that say nothing."""
    pairs = dict(str(item).split("=", 1) for item in side or [] if "=" in str(item))
    if pairs.get("use_cp") == "True":  # its name in older versions
        pairs["use_tucker"] = "True"
    pairs.pop("use_cp", None)
    pairs |= {"algo": "locon"} if pairs.get("algo") == "lora" else {}  # the same
    idle = {"", "0", "0.0", "False"}
    return {key: value for key, value in pairs.items() if value not in idle and (key, value) not in NOTHING}


def same(there: Any, here: Any) -> bool:
    """Return whether two values mean the same number, text, or list of arguments."""
    if isinstance(there, list) and isinstance(here, list) and there and "=" in str(there[0]):
        if not all("=" in str(item) for item in there):
            return True  # split at a space: the trainer stops
        pairs = [dict(str(item).split("=", 1) for item in side) for side in (there, here)]
        return pairs[0].keys() == pairs[1].keys() and all(same(value, pairs[1][key]) for key, value in pairs[0].items())
    if isinstance(here, list) and isinstance(there, str | int) and not isinstance(there, bool):
        there = [int(side) for side in str(there).split(",")]
        return [*there, there[0]][:2] == here
    if isinstance(there, list) and not isinstance(here, list):
        return all(same(item, here) for item in there)
    try:
        return float(there) == float(here)
    except (TypeError, ValueError):
        return literal(there) == literal(here) or str(there).lower() == str(here).lower()


def literal(value: Any) -> Any:
    """Return the literal that sd-scripts reads from a text, or the text."""
    try:
        return ast.literal_eval(str(value).replace("[", "(").replace("]", ")"))
    except (ValueError, SyntaxError):
        return str(value)


def differences(program: Any, path: Path, folder: Path) -> tuple[list[str] | None, int, int]:
    """Return a line for each unexplained difference, and the numbers of options and leaves.

    None: the program starts no training of the file.
    """
    placed = program.place(path, folder)
    ours, subsets, notes, leaves = exported(placed, folder)
    passed = program.passed(placed)
    if passed is None:
        return None, 0, leaves
    options = parser_options.of(passed.script)
    found: list[str] = []
    checked = 0
    given = meant(passed)
    for name in sorted(given.keys() | ours.keys()):
        if name in HERE or name in passed.unsure or name not in options or (passed.subsets and name in SUBSET):
            continue
        checked += 1
        default = DEFAULTS.get(name, options[name].default)
        there, here = (default if value is None else value for value in (given.get(name), ours.get(name)))
        if name.startswith(("bucket_", "min_bucket", "max_bucket")) and not given.get("enable_bucket"):
            continue
        idle = there in (None, False, "", "0", []) and here in (None, False, "", "0", [])
        if idle or same(there, here):
            continue
        if name == "lr_scheduler_num_cycles" and "restarts" not in str(given.get("lr_scheduler")):
            continue
        if name in ("save_every_n_steps", "save_state") and ours["max_train_steps"] < given.get("save_every_n_steps", 0):
            continue  # never
        if name == "lr_scheduler" and here == "adafactor":
            continue  # get_optimizer sets it for relative steps
        explained = [notes[key] for key in (name, *ALIASES.get(name, ())) if key in notes] or _arguments(
            name, there, here, notes
        )
        if not explained:
            found.append(f"{name}: {there!r} there, {here!r} here")
        elif VERBOSE:
            print(f"          {name}: {there!r} there, {here!r} here: {explained}"[:260])
    for name in SUBSET:
        sides = [Counter(_plain(subset.get(name)) for subset in side) for side in (passed.subsets, subsets)]
        checked += len(passed.subsets)
        if passed.subsets and sides[0] != sides[1] and not {name, "resolution", "max_resolution"} & notes.keys():
            found.append(f"subsets' {name}: {dict(sides[0])} there, {dict(sides[1])} here")
    return found, checked, leaves


def _arguments(name: str, there: Any, here: Any, notes: dict[str, str]) -> list[str]:
    """Return the notes on the arguments of an option that differ, if each has one."""
    if not name.endswith("_args"):
        return []
    sides = [arguments(side) for side in (there, here)]
    differing = {key for key in sides[0].keys() | sides[1].keys() if not same(sides[0].get(key), sides[1].get(key))}
    if "preset.toml" in sides[1].get("preset", ""):
        differing.discard("preset")  # the modules of a preset by name
    if any(key in notes for key in FAMILY) or "algo=full" in (there or []):
        differing -= {"conv_dim", "conv_alpha"}
    explained = [notes[key] for each in differing for key in (each, RENAMED.get(each, "")) if key in notes]
    return (explained or ["-"]) if len(explained) >= len(differing) else []


def _plain(value: Any) -> float:
    return float(value or 0)


VERBOSE = "--verbose" in sys.argv


def main() -> int:
    """Compare each file, print the differences, and count."""
    arguments = [word for word in sys.argv[1:] if word != "--verbose"]
    checkout = Path(arguments[0]).resolve()
    program: Any = next(make for mark, make in PROGRAMS.items() if (checkout / mark).is_file())(checkout)
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    for name in arguments[1:]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                lines, options, leaves = differences(program, Path(name).resolve(), Path(folder))
            except RecipeError as error:
                counts["refused"] += 1
                print(f"refused   {Path(name).name}: {'; '.join(map(str, error.problems))}")
                continue
        word = "not started there" if lines is None else "different" if lines else "the same"
        counts += Counter({word: 1, "options": options, "leaves": leaves})
        if lines or VERBOSE:
            print("\n          ".join([f"{word:<9} {Path(name).name}", *(lines or ())]))
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return int(bool(counts["different"]))


if __name__ == "__main__":
    raise SystemExit(main())
