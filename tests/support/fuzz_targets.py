"""Fuzz targets: files of strangers and their readers.

For each target, ``make`` gives an input and ``read`` lets the program read it. A seeded generator makes inputs from sound
files; the driver is fuzz.py. An exception of ``read`` is a traceback to the user.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
WORDS = [
    "--resume",
    "-h",
    "; rm -rf x",
    "$(id)",
    "../../x",
    "/etc/passwd",
    "\x1b[31m",
    "a" * 300,
    "猫",
    "",
    "nan",
    "\\",
    '"""',
    "\0",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, 2**70, -(2**70), 0.0, 1e-310, 1e308, float("inf"), float("nan")]
FAMILIES: tuple[dict[str, list[int]], ...] = (
    {"lora_down.weight": [2, 3], "lora_up.weight": [4, 2], "alpha": []},
    {"lora_down.weight": [2, 3, 1, 1], "lora_mid.weight": [2, 2, 3, 3], "lora_up.weight": [4, 2, 1, 1], "alpha": []},
    {"hada_w1_a": [4, 2], "hada_w1_b": [2, 3], "hada_w2_a": [4, 2], "hada_w2_b": [2, 3], "alpha": []},
    {"lokr_w1": [2, 3], "lokr_w2_a": [2, 1], "lokr_w2_b": [1, 2], "alpha": []},
)
Target = tuple["Callable[[random.Random], bytes]", "Callable[[bytes, Path], None]"]


def value(rng: random.Random, depth: int = 0) -> Any:
    """Return any TOML or JSON value."""
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind == 6:
        return {word(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return (None, rng.random() < 0.5, rng.choice(NUMBERS), word(rng), rng.randrange(-9, 9999))[kind]


def word(rng: random.Random) -> str:
    """Return a text of the kind that breaks things, or any."""
    if rng.random() < 0.6:
        return rng.choice(WORDS)
    return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x250), 0x1F600))) for _ in range(rng.randrange(12)))


def torn(rng: random.Random, data: bytes) -> bytes:
    """Return ``data`` with a few bytes changed, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randrange(20)]
            case 2:
                changed[at:at] = changed[: rng.randrange(64)]
            case _:
                changed[at : at + 8] = rng.choice((0, 2**31, 2**40, 2**63, 2**64 - 1)).to_bytes(8, "little")
    return bytes(changed)


def paths(table: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return every (table, key) of nested tables."""
    found = [(table, key) for key in table]
    for inner in table.values():
        found += paths(inner) if isinstance(inner, dict) else []
    return found


def make_recipe(rng: random.Random) -> bytes:
    """Return a whole recipe with a few keys changed, added or dropped.

    Now and then bytes are torn, too.
    """
    from orchestrator.recipe import loader, toml  # noqa: PLC0415 - atheris wants to see the import

    name = rng.choice(("krnk-lora3x3", "krnk-locon", "krnksf_tyankps-loha"))
    if name not in _WHOLE:
        _WHOLE[name] = json.dumps(loader.recipe(ROOT / "recipes", name).merged)
    table = json.loads(_WHOLE[name])
    for _ in range(rng.randrange(1, 4)):
        places = paths(table)
        if not places:
            break
        above, key = rng.choice(places)
        match rng.randrange(3):
            case 0:
                above[key] = value(rng)
            case 1:
                above[word(rng)] = value(rng)
            case _:
                del above[key]
    text = "\n".join(toml.lines(_without_none(table))).encode("utf-8", "replace")
    return torn(rng, text) if rng.random() < 0.2 else text


_WHOLE: dict[str, str] = {}


def _without_none(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _without_none(inner) for key, inner in item.items() if inner is not None}
    return [_without_none(inner) for inner in item if inner is not None] if isinstance(item, list) else item


def read_recipe(data: bytes, folder: Path) -> None:
    """Load it as ``run`` would, ask its engine, and say its problems."""
    from orchestrator import engines  # noqa: PLC0415
    from orchestrator.errors import RecipeError, report  # noqa: PLC0415
    from orchestrator.recipe import loader  # noqa: PLC0415
    from orchestrator.system.terminal import clean  # noqa: PLC0415

    (folder / "fuzzed.toml").write_bytes(data)
    try:
        recipe = loader.recipe(folder, "fuzzed").recipe
    except RecipeError as error:
        if "\x1b" in clean(report(error)):
            raise AssertionError("a control character would reach the terminal") from error
        return
    for problem in engines.get(recipe.engine).check(recipe):
        if not problem.what:
            raise AssertionError("a problem without words")


def make_header(rng: random.Random) -> bytes:
    """Return a safetensors file whose header has a few wrong entries or torn bytes."""
    table: dict[str, Any] = {}
    body = 0
    for index in range(rng.randrange(1, 4)):
        dtype, width = rng.choice((("F16", 2), ("F16", 2), ("BF16", 2), ("F32", 4), ("F64", 8)))
        for end, whole in rng.choice(FAMILIES).items():
            shape = whole if rng.random() < 0.95 else [rng.randrange(6) for _ in range(rng.randrange(6))]
            size = width * math.prod(shape)
            name = f"lora_unet_down_blocks_{index}_attentions_0_proj_in.{end}"
            table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [body, body + size]}
            body += size
    table["__metadata__"] = {"ss_network_module": "networks.lora", "ss_network_dim": "4", word(rng): word(rng)}
    for _ in range(rng.randrange(3)):
        above, key = rng.choice(paths(table))
        above[key] = value(rng)
    text = json.dumps(table).encode("utf-8", "replace")
    data = len(text).to_bytes(8, "little") + text + rng.randbytes(body)
    return torn(rng, data) if rng.random() < 0.7 else data


def read_header(data: bytes, folder: Path) -> None:
    """Read, inspect, guard and operate on a file, and check the output.

    The guard is that of a training's result.
    """
    from orchestrator.engines.sdscripts import training_states  # noqa: PLC0415
    from orchestrator.errors import OrchestratorError  # noqa: PLC0415
    from orchestrator.run import guards  # noqa: PLC0415
    from orchestrator.weights.compare import compare  # noqa: PLC0415
    from orchestrator.weights.convert import convert  # noqa: PLC0415
    from orchestrator.weights.inspect import inspect  # noqa: PLC0415
    from orchestrator.weights.io import safetensors_io as files  # noqa: PLC0415
    from orchestrator.weights.merge import merge  # noqa: PLC0415
    from orchestrator.weights.options import MergeOptions, ResizeOptions  # noqa: PLC0415
    from orchestrator.weights.resize import resize  # noqa: PLC0415
    from orchestrator.weights.sweep import sweep  # noqa: PLC0415
    from orchestrator.weights.verify import verify as verify_file  # noqa: PLC0415

    path = folder / "fuzzed.safetensors"
    path.write_bytes(data)
    training_states.whole(path)
    guards.zero_delta(path)
    try:
        files.read_header(path)
        json.dumps(inspect(path).to_json(), allow_nan=False)
    except OrchestratorError:
        return
    made = folder / "made.safetensors"
    verify_file(path)
    for work in (
        lambda: merge(path, made, MergeOptions([0.5] * 9 + [1.5] * 8), overwrite=True),
        lambda: merge(path, made, MergeOptions([0.5] * 17 + [1.5] * 9), overwrite=True),
        lambda: resize(path, made, ResizeOptions(), overwrite=True),
        lambda: convert(path, made, "plain", overwrite=True),
        lambda: convert(path, made, "full", overwrite=True),
        lambda: convert(path, made, "lora", rank=2, overwrite=True),
        lambda: compare(path, path).to_json(),
        lambda: sweep(path),
    ):
        made.unlink(missing_ok=True)
        try:
            work()
            if made.exists():
                files.read_header(made)
        except OrchestratorError:
            continue


CONVENTIONS = ("kohya", "diffusers", "peft", "comfy", "original")
OTHER_ROOTS = (
    ("lora_unet_", "lycoris_"),
    ("transformer.", "lora_transformer_"),
    ("diffusion_model.", "model.diffusion_model."),
)


def make_names(rng: random.Random) -> bytes:
    """Return a LoRA file by the names of a convention, with a few of them, or its tables, changed."""
    from orchestrator.models import conventions  # noqa: PLC0415
    from orchestrator.models.layers import layers  # noqa: PLC0415
    from orchestrator.models.registry import ARCHITECTURES  # noqa: PLC0415

    architecture = rng.choice(list(ARCHITECTURES))
    whole, target = layers(ARCHITECTURES[architecture].model), rng.choice(CONVENTIONS)
    table: dict[str, Any] = {}
    body, rank = 0, rng.randrange(1, 4)
    for layer in rng.sample(whole, min(len(whole), rng.randrange(1, 6))):
        made = conventions.written(layer.name, architecture, target)
        paths_ = made.paths if made else (layer.name,)
        rows = (made.rows(42) if made else None) or ((0, 42),)
        for path, (first, last) in zip(paths_, rows, strict=False):
            if rng.random() < 0.1:
                continue
            shown = path.replace(*rng.choice(OTHER_ROOTS)) if rng.random() < 0.1 else path
            up, down = rng.choice((("lora_up.weight", "lora_down.weight"), ("lora_B.weight", "lora_A.weight")))
            own = rank if rng.random() < 0.8 else rng.randrange(1, 5)
            parts = {up: [last - first, own], down: [own, 6]}
            parts |= {"alpha": []} if rng.random() < 0.6 else {}
            parts |= {rng.choice(("diff_b", "lora_B.bias", "dora_scale")): [last - first]} if rng.random() < 0.2 else {}
            dtype, width = rng.choice((("F16", 2), ("F16", 2), ("BF16", 2), ("F32", 4), ("F64", 8), ("F8_E4M3", 1)))
            for end, shape in parts.items():
                size = width * math.prod(shape)
                name = f"{torn(rng, shown.encode()).decode('latin-1') if rng.random() < 0.05 else shown}.{end}"
                table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [body, body + size]}
                body += size
    entry = {"rank": rank, "alpha": rng.choice((1.0, None, 0.3)), "dtype": "F16", "blocks": []}
    for _ in range(rng.randrange(3)):
        entry[rng.choice((*entry, "alpha_dtype", "alpha_shape"))] = value(rng)
    scales = {
        f"{rng.choice(('transformer', 'unet', 'base_model'))}.{rng.choice(('r', 'lora_alpha'))}": rng.choice(
            (1, 2, value(rng))
        )
    }
    table["__metadata__"] = {
        "orchestrator_layers": json.dumps({"": entry, word(rng): value(rng)}),
        **({"lora_adapter_metadata": json.dumps(scales)} if rng.random() < 0.3 else {}),
        **({"software": json.dumps(value(rng))} if rng.random() < 0.3 else {}),
    }
    text = json.dumps(table).encode("utf-8", "replace")
    data = len(text).to_bytes(8, "little") + text + rng.choice((bytes(body), rng.randbytes(body)))
    return torn(rng, data) if rng.random() < 0.1 else data


def read_names(data: bytes, folder: Path) -> None:
    """Inspect a file, and convert it to each convention and to kohya's."""
    from orchestrator.errors import OrchestratorError  # noqa: PLC0415
    from orchestrator.weights.convert import convert  # noqa: PLC0415
    from orchestrator.weights.inspect import inspect  # noqa: PLC0415

    path, made, back = (folder / f"{name}.safetensors" for name in ("named", "made", "back"))
    path.write_bytes(data)
    try:
        json.dumps(inspect(path).to_json(), allow_nan=False)
    except OrchestratorError:
        return
    for target in CONVENTIONS:
        for file in (made, back):
            file.unlink(missing_ok=True)
        try:
            json.dumps(convert(path, made, target, overwrite=True).to_json(), allow_nan=False)  # type: ignore[arg-type]
            convert(made, back, "kohya", overwrite=True)
        except OrchestratorError:
            continue


BANNER = (
    "import network module: networks.lora",
    "  num train images * repeats / 学習画像の数×繰り返し回数: {}",
    "  num batches per epoch / 1epochのバッチ数: {}",
    "  total optimization steps / 学習ステップ数: {}",
    "skipping {} steps",
    "create LoRA network. base dim (rank): {}, alpha: {}",
    "saving checkpoint: {}",
    "model saved.",
)


def make_progress(rng: random.Random) -> bytes:
    """Return output like a trainer's: frames, banner, lines, any line ends.

    Some lines are those of our own programs.
    """
    pieces = []
    for _ in range(rng.randrange(1, 6)):
        left = f"steps:  {rng.choice((50, word(rng)))}%|{word(rng)}| {rng.randrange(9)}/{rng.choice(NUMBERS)} [00:01<00:01, "
        own = json.dumps({"done": value(rng), "total": rng.choice(NUMBERS), "note": value(rng)})
        pieces.append(
            rng.choice(
                (
                    f"{left} {rng.choice(NUMBERS)}s/it, avr_loss={rng.choice((word(rng), 0.1, 'nan', 1e99))}]",
                    rng.choice(BANNER).replace("{}", str(rng.choice((*NUMBERS, word(rng))))),
                    f"PROGRESS {own if rng.random() < 0.7 else json.dumps(value(rng))}",
                    word(rng),
                )
            )
        )
    return torn(rng, rng.choice(("\n", "\r", "\r\n")).join(pieces).encode("utf-8", "replace"))


def read_progress(data: bytes, folder: Path) -> None:
    """Read it as every engine does, as our own programs' output, as a log, and as a whole training's."""
    from orchestrator import engines  # noqa: PLC0415
    from orchestrator.recipe import loader  # noqa: PLC0415
    from orchestrator.run import failure_cause, progress_log, resume  # noqa: PLC0415
    from orchestrator.system import log_tail  # noqa: PLC0415

    text = data.decode("utf-8", "replace")
    for name in engines.ENGINES:
        engine = engines.get(name)
        reader = engine.reader(loader.recipe(ROOT / "recipes", "krnk-locon").recipe, folder)
        for piece in text.splitlines():
            engine.read(piece)
            reader(piece)
    for piece in text.splitlines():
        progress_log.read_own(piece)
    failure_cause.find(text)
    (folder / "log.txt").write_bytes(data)
    log_tail.last_lines(folder / "log.txt")
    resume._progress(folder)


def make_record(rng: random.Random) -> bytes:
    """Return JSON that resembles the notes in a work folder."""
    child = {"supervisor": 1, "supervisor_started": "1", "pid": 1, "pid_started": "1", "at": 1.0, "host": "x", "place": "y"}
    record = {
        "schema": 1,
        "key": "k",
        "kind": "train",
        "name": "x/train",
        "params": {},
        "sources": {},
        "inputs": {},
        "argv": [],
    }
    record |= {
        "outputs": {"a": {"sha256": "0", "bytes": 1}},
        "seconds": 1.0,
        "resumed_from": None,
        "attempts": 1,
        "engine": "",
    }
    record |= {"changes": {}, "host": {}, "lane": "", "slot": "", "waited": 0.0, "started": 1.0}
    if rng.random() < 0.4:
        for _ in range(rng.randrange(4)):
            above, key = rng.choice(paths(record))
            above[key] = value(rng)
        return torn(rng, json.dumps(record).encode("utf-8", "replace")) if rng.random() < 0.3 else json.dumps(record).encode()
    noted: dict[str, Any] = {
        **child,
        "since": 0,
        "started": "1",
        "code": 0,
        "change": {},
        "log_at": 0,
        "argv": ["x"],
        "cwd": ".",
    }
    for _ in range(rng.randrange(4)):
        noted[rng.choice(list(noted))] = value(rng)
    return torn(rng, json.dumps(noted if rng.random() < 0.8 else value(rng)).encode("utf-8", "replace"))


def read_record(data: bytes, folder: Path) -> None:
    """Read it as every kind of note in a work folder, and as a lock."""
    from orchestrator.cli import results  # noqa: PLC0415
    from orchestrator.report import collect  # noqa: PLC0415
    from orchestrator.run import attempt_log, failure_cause, paths, progress_log, record, resume, trace  # noqa: PLC0415
    from orchestrator.system import child_status, lock, supervisor  # noqa: PLC0415

    work = folder / "runs" / "x" / ".partial" / "train-000000000000"
    work.mkdir(parents=True, exist_ok=True)
    for name in (supervisor.CHILD, supervisor.EXIT, paths.ATTEMPTS, "record.json", "progress.jsonl", "expected.json"):
        (work / name).write_bytes(data)
    (work / "log.txt").write_bytes(data)
    child_status.alive(work)
    child_status.started_at(work)
    child_status.ended_well(work)
    failure_cause.of_log(work / "log.txt")
    attempt_log.by_hand(work)
    for holder in (lock.read(work / supervisor.CHILD), lock.read(work / "log.txt")):
        str(holder)
    for each in resume.unfinished(folder / "runs"):
        results.unfinished_line(each)
    if (earlier := record.load(work / "record.json")) is not None:
        earlier.digest()
    progress_log.readings(work / "progress.jsonl")
    trace.chrome(trace.spans([work / "record.json"]))
    collect._step(folder / "runs", "x/train", "train", "", "")


def picture(rng: random.Random) -> bytes:
    """Return a PNG, sound or torn, or one that claims more pixels than any memory holds."""
    side = rng.choice((8, 8, 8, 64, 0, 2**31 - 1))

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side, 8, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9 * 8))) + chunk(b"IEND", b"")
    return torn(rng, data) if rng.random() < 0.5 else data


def make_folder(rng: random.Random) -> bytes:
    """Return a folder as lines: a name, a tab, its content in hexadecimal.

    A content of "/" is a folder, of "@" a link.
    """
    lines = []
    for _ in range(rng.randrange(1, 6)):
        stem = rng.choice((f"f0{rng.randrange(9)}", "b12", word(rng).replace("\t", " ").replace("\n", " ")))
        name = f"{rng.choice(('', '', '4_cat/', 'cat girl_f0064/', word(rng)[:9] + '/'))}{stem}"
        ending = rng.choice((".png", ".png", ".txt", ".jpg", ".webp", ".PNG", ".caption", ""))
        body = rng.choice((picture(rng), picture(rng), word(rng).encode("utf-8", "replace"), rng.randbytes(30), b""))
        lines.append(f"{name}{ending}\t{rng.choice((body.hex(), body.hex(), body.hex(), '/', '@'))}")
    return "\n".join(lines).encode("utf-8", "replace")


def read_folder(data: bytes, folder: Path) -> None:
    """Lay the files out below the project and plan the dataset in every way of reading."""
    from orchestrator.dataset.buckets import predict_batches  # noqa: PLC0415
    from orchestrator.dataset.layout import make_layout  # noqa: PLC0415
    from orchestrator.dataset.problems import dataset_problems  # noqa: PLC0415
    from orchestrator.dataset.sources import source_files  # noqa: PLC0415
    from orchestrator.errors import OrchestratorError  # noqa: PLC0415
    from orchestrator.recipe import Dataset  # noqa: PLC0415

    source = folder / "data"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for line in data.decode("utf-8", "replace").split("\n")[:20]:
        name, _, body = line.partition("\t")
        try:
            path = source / Path(*[part for part in name.split("/") if part not in ("", ".", "..")])
            path.parent.mkdir(parents=True, exist_ok=True)
            if body == "/":
                path.mkdir()
            elif body == "@":
                path.symlink_to(rng_free_target(name))
            else:
                path.write_bytes(bytes.fromhex(body))
        except (OSError, ValueError):
            continue  # no file system holds this name
    for reading in ("pictures", "charframework", "kohya"):
        for captions in ("view", "files") if reading == "pictures" else ("files",):
            source = {"images": "data", "reading": reading, "captions": captions, "trigger": "cat", "class_tokens": "cat girl"}
            dataset = Dataset.model_validate_json(json.dumps({"name": "x", "sources": {"a": source}, "sizes": [8]}))
            try:
                source_files(dataset, folder)
                layout = make_layout(dataset, folder)
                predict_batches(layout, dataset)
                dataset_problems(layout, dataset, folder)
            except OrchestratorError:
                continue


def rng_free_target(name: str) -> str:
    """Return where a link of this name leads: to itself, out of the folder, or to nothing."""
    return (name.rpartition("/")[2] or ".", "/etc", "../..", "nowhere")[len(name) % 4]


def make_bundle(rng: random.Random) -> bytes:
    """Return the manifest of a release, or something like it."""
    facts = {"triggers": ["cat"], "weights": {"tensor_bytes": 2}, "file": {"model_hash": "0" * 64}}
    bundle = {"facts": facts, "recipe": {"release": {"scrub": True}}, "lock": {"engine": "x"}}
    manifest: dict[str, Any] = {"kind": "recipe", "name": "cat", "files": {"cat.safetensors": {"sha256": "0" * 64}}, **bundle}
    if rng.random() < 0.5:
        manifest |= {"kind": "collection", "members": {"cat": bundle}}
    for _ in range(rng.randrange(4)):
        above, key = rng.choice(paths(manifest))
        above[key] = value(rng)
    data = json.dumps(manifest if rng.random() < 0.9 else value(rng)).encode("utf-8", "replace")
    return torn(rng, data) if rng.random() < 0.2 else data


def read_bundle(data: bytes, folder: Path) -> None:
    """Verify a release of this manifest, also as its trainer's words, compare it with itself, open its bytes as a zip."""
    from orchestrator.errors import OrchestratorError  # noqa: PLC0415
    from orchestrator.release import diff, verify  # noqa: PLC0415

    made = folder / "release"
    made.mkdir(exist_ok=True)
    text = data.decode("utf-8", "replace")
    trained = {"ss_datasets": f"[{text}]", "ss_tag_frequency": text, "ss_network_args": text, "ssmd_rating": text[:1]}
    tensor = {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}
    header = json.dumps({"__metadata__": trained, "lora_unet_x.alpha": tensor}).encode()
    files = {
        "manifest.json": data,
        "cat.safetensors": struct.pack("<Q", len(header)) + header + b"\0\0",
        "README.md": b"[a](b)",
    }
    for name, content in files.items():
        (made / name).write_bytes(content)
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    (made / "SHA256SUMS").write_text(sums, "utf-8")
    archive = folder / "release.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(made.iterdir()):
            target.write(path, f"cat/{path.name}")
    spoiled = bytearray(archive.read_bytes())
    spoiled[len(data) * 7 % len(spoiled)] ^= 1 + len(data) % 255
    archive.write_bytes(spoiled)
    for path in (made, archive):
        with contextlib.suppress(OrchestratorError):
            verify.verify_bundle(path)
            diff.differences(path, path)


TARGETS: dict[str, Target] = {
    "bundles": (make_bundle, read_bundle),
    "recipes": (make_recipe, read_recipe),
    "headers": (make_header, read_header),
    "names": (make_names, read_names),
    "progress": (make_progress, read_progress),
    "records": (make_record, read_record),
    "folders": (make_folder, read_folder),
}
