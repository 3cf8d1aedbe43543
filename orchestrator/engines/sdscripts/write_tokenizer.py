"""Write the tokenizers of sd-scripts that need no download.

A program for sd-scripts' Python: ``python write_tokenizer.py FOLDER CHECKOUT``. It does not import torch. sd-scripts loads
FOLDER/NAME and stays offline (library/strategy_base.py 54-71). CLIP has the vocabulary of open_clip_torch, as SDXL's second
text encoder, whose other padding sd-scripts sets itself (library/strategy_sdxl.py 26). T5 lies in the checkout.
ByT5 has no vocabulary, since its tokens are bytes; its program takes a cache of the Hub only.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import sys
from pathlib import Path

CLIP_L, CLIP_G = "openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k"
SD2, T5, BYT5 = "stabilityai_stable-diffusion-2", "google_t5-v1_1-xxl", "models--google--byt5-small"
NAMES = (CLIP_L, CLIP_G, SD2, T5, BYT5)
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2  # lines of the file; with 2 x 256 bytes and 2 special tokens that makes 49408


def characters() -> list[str]:
    """Return a printable character for each byte, in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]


def write(folder: Path, checkout: Path) -> None:
    """Write the tokenizer whose name the folder has.

    Raises:
        FileNotFoundError: its source is not there.
    """
    draft = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    if folder.name == T5:
        shutil.copytree(checkout / "configs" / "t5_old", draft)
    else:
        for name, content in (_byt5() if folder.name == BYT5 else _clip(folder.name)).items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(content, "utf-8")
    draft.rename(folder)


def _byt5() -> dict[str, str]:
    """Return the files of google/byt5-small in a cache of the Hub."""
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    snapshot = f"snapshots/{'0' * 40}"
    return {
        "refs/main": "0" * 40,
        f"{snapshot}/config.json": json.dumps({"model_type": "t5", "tokenizer_class": "ByT5Tokenizer"}),
        f"{snapshot}/tokenizer_config.json": json.dumps({"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125, **special}),
    }


def _clip(name: str) -> dict[str, str]:
    """Return the four files of a CLIP tokenizer.

    The vocabulary: bytes, bytes at the end of a word, merges, two special tokens.

    Raises:
        FileNotFoundError: the package open_clip_torch is not installed.
    """
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(2, "the package open_clip_torch is not there", VOCABULARY)
    text = gzip.decompress((Path(spec.origin).parent / VOCABULARY).read_bytes()).decode("utf-8")
    merges = text.split("\n")[1 : MERGES + 1]
    words = [*characters(), *(character + "</w>" for character in characters()), *("".join(merge.split()) for merge in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    end = "<|endoftext|>"
    specials = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": "!" if name == SD2 else end}
    # Without model_max_length the length is 1e30 and padding fails.
    config = {**specials, "model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    return {
        "vocab.json": json.dumps({word: number for number, word in enumerate(words)}),
        "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
        "special_tokens_map.json": json.dumps(specials),
        "tokenizer_config.json": json.dumps(config),
    }


if __name__ == "__main__":
    for target in (Path(sys.argv[1]) / name for name in NAMES):
        if not target.is_dir():
            write(target, Path(sys.argv[2]))
        print(target)
