"""Every known cause of failure, by a text that the program really prints."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from orchestrator.run import attempt_log, failure_cause, paths

RECORDINGS = Path(__file__).resolve().parents[1] / "data" / "recordings"
TEXTS = {
    "disk full": "RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 128 vs 22",
    "quota": "OSError: [Errno 122] Disk quota exceeded: 'krnk.safetensors'",
    "shared memory": "RuntimeError: unable to write to file </torch_1>: unable to mmap 64 bytes from shared memory",
    "out of GPU memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB",  # noqa: E501
    "out of memory": "RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",  # noqa: E501
    "no data found": "ERROR    No data found. Please verify arguments (train_data_dir must be the parent of folders with images)",  # noqa: E501
    "no bitsandbytes": "ImportError: No bitsandbytes / bitsandbytesがインストールされていないようです",
    "broken bitsandbytes": "libbitsandbytes_cuda118.so: cannot open shared object file: No such file or directory",
    "no xformers": "ImportError: No xformers / xformersがインストールされていないようです",
    "xformers mismatch": "NotImplementedError: No operator found for `memory_efficient_attention_forward` with inputs:",
    "wrong LyCORIS": "AssertionError: duplicated lora name: lora_unet_time_embedding_linear_1",
    "missing package": "ModuleNotFoundError: No module named 'einops'",
    "tokenizer offline": "OSError: Can't load tokenizer for 'openai/clip-vit-large-patch14'. If you were trying to load it",
    "offline": "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache",
    "NaN in the VAE": "RuntimeError: NaN detected in latents: data/krnk/f00.png",
    "the GPU is too new or too old": "RuntimeError: CUDA error: no kernel image is available for execution on the device",
    "driver too old": "The NVIDIA driver on your system is too old (found version 11040)",
    "CUDA mismatch": "ValueError: fp16 mixed precision requires a GPU (not 'cpu').",
    "GPU lost": "RuntimeError: CUDA error: an illegal memory access was encountered",
    "broken base model": "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
    "wrong base model": "RuntimeError: Error(s) in loading state_dict for UNet2DConditionModel: Missing key(s)",
    "cache_latents": "AssertionError: when caching latents, either color_aug or random_crop cannot be used",
    "bucket range": "AssertionError: min_bucket_reso must be equal or less than resolution. min_bucket_reso=256",
    "dataset config": "voluptuous.error.MultipleInvalid: extra keys not allowed @ data['general']['x']",
    "unknown option": "train_network.py: error: unrecognized arguments: --learning_rat 1",
    "workers": "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed.",
    "encoding": "UnicodeEncodeError: 'ascii' codec can't encode characters in position 0-3",
    "broken picture": "PIL.UnidentifiedImageError: cannot identify image file '/data/f00.png'",
    "permission": "PermissionError: [Errno 13] Permission denied: '/data/out'",
    "NaN loss": "steps:  50%|#####     | 2/4 [00:01<00:01,  1.00it/s, avr_loss=nan]",
}


def test_every_cause_has_a_text_here() -> None:
    table = tomllib.loads(Path(failure_cause.__file__).with_name("failure_cause.toml").read_text("utf-8"))
    assert {cause["name"] for cause in table["cause"]} == set(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_names_its_cause(name: str) -> None:
    cause = failure_cause.find(f"epoch 1/2\n\n{TEXTS[name]}\n  File x\n", 1)
    assert cause is not None
    assert cause.name == name
    assert cause.what
    assert cause.fix
    assert "{word}" not in cause.what


def test_a_text_that_rich_has_wrapped() -> None:
    wrapped = "ERROR    No data\n                    found. Please verify  train_network.py:576\n"
    cause = failure_cause.find(wrapped, 0)
    assert cause is not None
    assert cause.name == "no data found"


def test_the_file_of_a_failure_is_quoted() -> None:
    cause = failure_cause.find(TEXTS["missing package"])
    assert cause is not None
    assert "einops" in cause.what


def test_an_unknown_failure_stays_unknown() -> None:
    assert failure_cause.find("Traceback (most recent call last):\nKeyError: 'x'", 1) is None
    assert failure_cause.find("", 0) is None


@pytest.mark.parametrize(
    ("code", "name"), [(-9, "killed by the kernel"), (137, "killed by the kernel"), (-11, "crashed"), (-7, "bus error")]
)
def test_a_signal_is_a_cause(code: int, name: str) -> None:
    cause = failure_cause.find("all was well", code)
    assert cause is not None
    assert cause.name == name


@pytest.mark.parametrize(
    ("file", "name"), [("nodata.stderr.log", "no data found"), ("nan.stderr.log", "NaN loss"), ("locon.stderr.log", None)]
)
def test_logs_of_the_real_trainer(file: str, name: str | None) -> None:
    cause = failure_cause.of_log(RECORDINGS / file, 0)
    assert (cause.name if cause else None) == name


def test_only_the_last_attempt_counts(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("CUDA out of memory\n", "utf-8")
    before = log.stat().st_size
    with log.open("a", encoding="utf-8") as file:
        file.write("OSError: [Errno 28] No space left on device\n")
    attempts = [
        {"argv": ["a"], "log_at": 0},
        {"argv": ["python", "a b.py"], "cwd": "/x y", "env": {"A": "1 2"}, "log_at": before},
    ]
    (tmp_path / paths.ATTEMPTS).write_text("".join(json.dumps(attempt) + "\n" for attempt in attempts), "utf-8")
    cause = failure_cause.of_log(log, 1)
    assert cause is not None
    assert cause.name == "disk full"
    assert attempt_log.by_hand(tmp_path) == "cd '/x y' && env A='1 2' python 'a b.py'"


def test_the_text_a_person_reads() -> None:
    cause = failure_cause.find(TEXTS["out of GPU memory"], 1)
    text = failure_cause.format_failure(1, cause, ["first", "second"])
    assert text == (
        "the GPU's memory is full (out of GPU memory; ended with exit code 1); the last lines of its output:\n      first\n      second"  # noqa: E501
    )
    assert failure_cause.format_failure(1, None, []) == "ended with exit code 1; it printed nothing"


def test_a_hint_names_the_recipe(tmp_path: Path) -> None:
    hint = failure_cause.hint(failure_cause.find(TEXTS["no data found"]), "krnk-locon", tmp_path / "log.txt")
    assert "dataset check krnk-locon" in hint
    assert hint.splitlines()[-1].strip().startswith("by hand: ")
