"""Read the LoRA lines of CharFramework's batch files.

``call LoRA LOGIC DIM LR STEPS SOURCE OUTPUT MODEL [VAE] CLIP_SKIP [WEIGHTS]`` (its README and LoRA.bat).
"""

from __future__ import annotations

import re
import shlex

from orchestrator.errors import Problem, RecipeError, near_miss
from orchestrator.importers.notes import Disposition, ImportedSettings

_LINE = re.compile(r"^\s*(?:@?call\s+)?(?:\S*[\\/])?LoRA(?:\.bat)?\s+(\S.*)$", re.IGNORECASE)
_LOGIC = re.compile(r"(Lora3x3|Lora1x1|Locon|Loha)(A1|A50p)-(AdamW8|AdaFac\w*tor)", re.IGNORECASE)
_WORDS = ("LOGIC", "DIM", "LR", "STEPS", "SOURCE", "OUTPUT", "MODEL", "VAE", "CLIP_SKIP", "WEIGHTS")
_ORIGIN = {
    "network_module": "LOGIC",
    "network_dim": "DIM",
    "max_train_steps": "STEPS",
    "pretrained_model_name_or_path": "MODEL",
    "vae": "VAE",
    "clip_skip": "CLIP_SKIP",
    "network_weights": "WEIGHTS",
}
_USAGE = "LoRA LOGIC DIM LR STEPS SOURCE OUTPUT MODEL [VAE] CLIP_SKIP [WEIGHTS]"


def is_line(text: str) -> bool:
    """Return True for one LoRA line with a logic of LoRA.bat."""
    match = _LINE.match(text)
    return match is not None and "\n" not in text and _LOGIC.match(match[1]) is not None


def lines(text: str, where: str) -> list[ImportedSettings]:
    """Read every LoRA line of a batch file.

    Raises:
        RecipeError: a malformed line, with its number.
    """
    trainings: list[ImportedSettings] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line)
        if match is None or line.strip().lower().startswith(("rem ", "::")):
            continue
        # shlex reads a backslash as an escape, a batch file does not.
        words = [word.strip('"') for word in shlex.split(match[1].partition(">")[0], posix=False)]
        try:
            trainings.append(_read(words))
        except ValueError as error:
            problems.append(Problem(f"{where}, line {number}", str(error), _USAGE))
    if problems:
        raise RecipeError(problems)
    return trainings


def _read(words: list[str]) -> ImportedSettings:
    if not 8 <= len(words) <= 10:
        raise ValueError(f"has {len(words)} arguments; LoRA.bat takes 8 to 10")
    logic, dim_, rate_, steps_, source, output, model, *rest = words
    kind, alpha_rule, optimizer = _logic(logic)
    # clip_skip is the first number of the rest: the VAE before it, the LoRA to continue from after it.
    skip = next((index for index, word in enumerate(rest) if word.isdigit()), None)
    if skip is None or skip > 1 or len(rest) > skip + 2:
        raise ValueError(f"{' '.join(rest)}: takes [VAE] CLIP_SKIP [WEIGHTS]")
    for what, number in (("DIM", dim_), ("LR", rate_), ("STEPS", steps_)):
        if not number.isdigit() or not int(number):
            raise ValueError(f"{what} is {number}; takes a whole number")
    dim, rate = int(dim_), int(rate_)
    alpha = 1 if alpha_rule == "a1" else dim // 2
    if alpha < 1:
        raise ValueError(f"DIM is {dim}: half of it is not a valid alpha")
    settings = ImportedSettings(f"{output}-{kind}", "CharFramework")
    args: dict[str, object] = {} if kind == "lora1x1" else {"conv_dim": dim, "conv_alpha": alpha}
    if kind in {"locon", "loha"}:
        args |= {"algo": kind, "use_tucker": True}
        settings.extra["lycoris_2023"] = True
        settings.note(
            Disposition.CHANGED,
            "LyCORIS 0.1.3",
            "network.tucker, network.preset",
            "these were its defaults; today's LyCORIS needs them set",
        )
    vae, weights = (rest[0] if skip == 1 else None), (rest[-1] if len(rest) > skip + 1 else None)
    values = (logic, dim, rate, int(steps_), source, output, model, vae, int(rest[skip]), weights)
    settings.leaves = {name: value for name, value in zip(_WORDS, values, strict=True) if value is not None}
    settings.origin = dict(_ORIGIN)
    settings.options = {
        "network_module": "lycoris.kohya" if kind in {"locon", "loha"} else "networks.lora",
        "network_dim": dim,
        "network_alpha": alpha,
        "network_args": args,
        "max_train_steps": int(steps_),
        "pretrained_model_name_or_path": model,
        "clip_skip": int(rest[skip]),
        "sdpa": True,
        "mixed_precision": "fp16",
        "save_precision": "fp16",
        "gradient_checkpointing": True,
        "persistent_data_loader_workers": True,
        "max_data_loader_n_workers": 8,
        "seed": 31337,
    }
    _set_optimizer(settings, optimizer, rate)
    if vae is not None:
        settings.options["vae"] = vae
    if weights is not None:
        settings.options["network_weights"] = weights
    settings.note(Disposition.KEPT, "LOGIC", "network.family")
    settings.note(Disposition.KEPT, "OUTPUT", why="the recipe's name, with the family")
    settings.extra["charframework"] = source
    settings.note(Disposition.CHANGED, "xformers", "training.attention", "replaced by the sdpa of today's torch")
    return settings


def _logic(text: str) -> tuple[str, str, str]:
    """Return family, rule for alpha and optimizer of a learning logic."""
    match = _LOGIC.fullmatch(text)
    if match is None:
        logics = [
            f"{family}{alpha}-{optimizer}"
            for family in ("Lora3x3", "Lora1x1", "Locon", "Loha")
            for alpha in ("A1", "A50p")
            for optimizer in ("AdamW8", "AdaFactor")
        ]
        raise ValueError(f"{text} is not a learning logic of LoRA.bat{near_miss(text, logics)}")
    return match[1].lower(), match[2].lower(), match[3].lower()


def _set_optimizer(settings: ImportedSettings, optimizer: str, rate: int) -> None:
    """Set the optimizer, and its rates by the number LR."""
    if optimizer == "adamw8":
        # set /a truncates: 44 of 100, not 44.4.
        rates = {"learning_rate": rate / 1e6, "text_encoder_lr": rate * 44 // 100 / 1e6}
        settings.options |= {"optimizer_type": "AdamW8bit", **rates, "lr_scheduler": "cosine_with_restarts"}
        why = "in millionths; the text encoder has 44 % of it"
        settings.note(Disposition.CHANGED, "LR", "training.learning_rate", why)
    else:
        settings.options |= {"optimizer_type": "adafactor"}
        settings.options["optimizer_args"] = {"relative_step": True, "scale_parameter": True, "warmup_init": False}
        settings.note(Disposition.CHANGED, "LR", why="AdaFactor computes its own rate; the number was a placeholder")
