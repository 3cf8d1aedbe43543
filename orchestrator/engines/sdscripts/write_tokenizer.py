"""Write CLIP's tokenizers for sd-scripts from open_clip_torch.

A program for sd-scripts' Python: ``python write_tokenizer.py FOLDER``. It downloads nothing and does not import torch.
sd-scripts loads FOLDER/NAME and stays offline (library/strategy_base.py 54-71). SDXL's second text encoder has the same
vocabulary; sd-scripts sets its other padding itself (library/strategy_sdxl.py 26).
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path

NAMES = ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k")  # the second one is SDXL's
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2  # lines of the file; with 2 x 256 bytes and 2 special tokens that makes 49408


def characters() -> list[str]:
    """Return a printable character for each byte, in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]


def write(folder: Path) -> None:
    """Write a tokenizer's four files.

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
    end = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    specials = {"bos_token": "<|startoftext|>", **end}
    # Without model_max_length the length is 1e30 and padding fails.
    config = {**specials, "model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    files = {
        "vocab.json": json.dumps({word: number for number, word in enumerate(words)}),
        "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
        "special_tokens_map.json": json.dumps(specials),
        "tokenizer_config.json": json.dumps(config),
    }
    draft = folder.with_name(f"{folder.name}.part")
    draft.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (draft / name).write_text(content, "utf-8")
    draft.rename(folder)


if __name__ == "__main__":
    for target in (Path(sys.argv[1]) / name for name in NAMES):
        if not target.is_dir():
            write(target)
        print(target)
