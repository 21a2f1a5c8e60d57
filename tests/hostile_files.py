"""Files that are meant to harm, of every kind that osjax reads: drawn from a seed, below a folder.

A kind is a function of (folder, rng, traps, sound) that writes files and returns how many, and what then reads them:
words of a command line, or a function of the folder.
"""

import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from osjax.data import dataset, index, loader, tokenize
from osjax.errors import UserError
from osjax.models import config as model_config
from osjax.sampling import prompts, references, workdir
from osjax.weights import adapters, orbax_stream
from tests import damage, tokenizer_files
from tests.data.test_opened import LISTS, NAMES
from tests.sampling import tiny

Rng = random.Random
Reads = Sequence[str] | Callable[[], object]


@dataclass(frozen=True)
class Traps:
    """What no file may reach. module: a name that would be imported. shell: a file that a command would touch.

    outside: a folder with secret.txt, secret.ts and secret.png. address: host:port where somebody listens.
    """

    module: str
    shell: Path
    outside: Path
    address: str

    def words(self, rng: Rng) -> str:
        """Text that programs have fallen for."""
        return rng.choice(
            [
                f"$(touch {self.shell})",
                f"`touch {self.shell}`",
                f"; touch {self.shell} #",
                f"__import__('{self.module}')",
                f"{{{{ {self.module} }}}}",
                "%n%s%x",
                "{0.__class__.__init__.__globals__}",
                f"http://{self.address}/x.mp4",
                f"<img src=http://{self.address}/x>",
                f"=cmd|' /C touch {self.shell}'!A0",
                "\x1b]0;owned\x07\x1b[2J",
                "line\nosjax: all is well",
                "\u202egpj.exe",
                "NaN",
                "1e999",
                "-1",
                "9" * 400,
                "a" * 5000,
                "\0",
                "\ud800",
                str(self.outside / "secret.txt"),
                "../" * 12 + str(self.outside / "secret.txt").lstrip("/"),
                "file://" + str(self.outside / "secret.txt"),
                f"simplecache::http://{self.address}/x",
                "memory://x",
                "/dev/zero",
                "/dev/stdin",
                "",
                ".",
            ]
        )


def lists(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """Lists and session descriptions under names of videos, beside a sound one, with captions."""
    targets = [str(traps.outside / "secret.ts"), "../secret.ts", f"http://{traps.address}/x.ts"]
    names = {rng.choice(NAMES[:2] + ("x.mov", "x.avi", "x.ts", "x.webm")) for _ in range(4)}
    for name in names:
        (folder / name).write_text(LISTS[rng.choice(list(LISTS))].replace("{secret}", rng.choice(targets)))
        (folder / name).with_suffix(".txt").write_text(traps.words(Rng(0)))
    return len(names), _build_or_probe(folder, rng)


def videos(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """Damaged videos and pictures, links and pipes under names of videos."""
    for n in range(6):
        data = rng.choice(sorted((sound / "media").iterdir())).read_bytes()
        (folder / f"{n}.mp4").write_bytes(damage.damaged(data, rng))
        (folder / f"{n}.txt").write_text("a clip")
    (folder / "6.mp4").symlink_to(rng.choice([traps.outside / "secret.ts", Path("/dev/zero"), Path("6.mp4")]))
    os.mkfifo(folder / "7.mp4")
    return 8, _build_or_probe(folder, rng)


def _build_or_probe(source: Path, rng: Rng) -> Reads:
    out = source.parent / "out" if source.is_file() else source.parent / "built"
    step, out = rng.choice([("build", out), ("probe", out.with_suffix(".parquet")), ("probe", out.with_suffix(".csv"))])
    return ["data", step, str(source), str(out)]


def given(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """A reference for sampling: a damaged picture or video, a list, or a picture that states a huge size."""
    name = rng.choice(["x.png", "x.jpg", "x.gif", "x.webp", "x.tiff", "x.mp4", "x.mkv"])
    data = rng.choice(sorted((sound / "media").iterdir())).read_bytes()
    if rng.random() < 0.2:
        data = LISTS["ffconcat"].replace("{secret}", str(traps.outside / "secret.ts")).encode()
    elif rng.random() < 0.2:
        data = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 2**31 - 1, 2**31 - 1) + b"\x08\x02\0\0\0" + data
    else:
        data = damage.damaged(data, rng)
    (folder / name).write_bytes(data)
    return 1, partial(references.load, str(folder / name), 32, 32)


def records(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """A data set whose records hold lists and damaged videos, as a training run reads it."""
    for n in range(6):
        data = damage.damaged(rng.choice(sorted((sound / "media").iterdir())).read_bytes(), rng)
        if rng.random() < 0.3:
            data = LISTS[rng.choice(list(LISTS))].replace("{secret}", str(traps.outside / "secret.ts")).encode()
        (folder / f"{n}.mp4").write_bytes(data)
    (folder / "6.mp4").write_bytes((sound / "media" / "sound.mp4").read_bytes())
    frames = [rng.choice([0, 1, 8, 2**31 - 1]) for _ in range(6)]
    about = {"height": 32, "width": 32, "fps": rng.choice([8.0, 0.0, -1.0, float("nan")])}
    rows = [{"path": str(folder / f"{n}.mp4"), "text": "a", "num_frames": k, **about} for n, k in enumerate(frames)]
    rows.append({**rows[0], "path": str(folder / "6.mp4"), "num_frames": 8, "fps": 8.0})
    return 6, partial(_trained, dataset.build_clips(rows, folder / "built"))


def _trained(path: Path) -> None:
    source = dataset.open_source(path)
    source.index()
    workers = loader.ClipWorkers(source, 1, 15.0)
    reader = loader.ClipReader(source, loader.Window(4, 32, 32, fps_max=24, random_start=True), workers)
    for n in range(len(source)):
        reader(n, np.random.default_rng(n))


def sets(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """A data set that names a class, with other numbers or a damaged file, mostly without fingerprints."""
    path = Path(shutil.copytree(next((sound / "set").rglob("dataset_info.json")).parent, folder / "set"))
    if rng.random() < 0.8:
        (path / "fingerprints.json").unlink()
    name = rng.choice(sorted(p.name for p in path.iterdir()))
    data = (path / name).read_bytes()
    if name.endswith(".json") and rng.random() < 0.6:
        text = data.decode()
        old = rng.choice(["tensorflow_datasets.core.features.tensor_feature.Tensor", "int32", "train", "[", "1.0.0"])
        data = text.replace(old, rng.choice([f"{traps.module}.Feature", "[" * 5000, "../../x"])).encode()
    elif name == index.FILE and rng.random() < 0.6:
        with (path / name).open("wb") as file:
            np.save(file, np.array([_Touching(traps)], object), allow_pickle=True)
        data = (path / name).read_bytes()
    else:
        data = damage.damaged(data, rng)
    (path / name).write_bytes(data)
    return 1, partial(_trained, path)


class _Touching:
    """What touches a file, or imports a module, as it is unpickled."""

    def __init__(self, traps: Traps):
        self.traps = traps

    def __reduce__(self):
        return os.system, (f"touch {self.traps.shell}",)


def tables(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """A table of clips in CSV or Parquet: paths and numbers of any kind, or a damaged file."""
    for n in range(2):
        shutil.copy(sound / "media" / "sound.mp4", folder / f"{n}.mp4")
    row = {"path": "0.mp4", "text": "a clip", "num_frames": 8, "fps": 8.0, "motion": 1.0}
    rows = [row, *({**row, rng.choice(list(row)): traps.words(rng)} for _ in range(4))]
    path = folder / rng.choice(["t.csv", "t.parquet"])
    if path.suffix == ".csv":
        quoted = [",".join('"' + str(v).replace('"', '""') + '"' for v in r.values()) for r in rows]
        path.write_bytes("\n".join([",".join(row), *quoted]).encode(errors="surrogatepass"))
    else:
        kinds = {k: [str(r[k]).encode(errors="replace").decode() for r in rows] for k in row}
        if rng.random() < 0.3:
            kinds["path"] = [[{"a": x}] for x in kinds["path"]]
        pq.write_table(pa.table(kinds), path)
    if rng.random() < 0.4:
        path.write_bytes(damage.damaged(path.read_bytes(), rng))
    return 1, _build_or_probe(path, rng)


def captions(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """Captions beside videos: links out of the folder, pipes, gigabytes, words of other encodings."""
    for n in range(5):
        shutil.copy(sound / "media" / "sound.mp4", folder / f"{n}.mp4")
        path = folder / f"{n}.txt"
        match rng.randrange(5):
            case 0:
                path.symlink_to(rng.choice([traps.outside / "secret.txt", Path("/etc/passwd"), Path("/dev/zero")]))
            case 1:
                os.mkfifo(path)
            case 2:
                with path.open("wb") as file:
                    file.truncate(2**31)
            case 3:
                path.write_bytes(damage.damaged(b"a clip of a dog\n", rng))
            case 4:
                path.write_bytes(traps.words(rng).encode(errors="surrogatepass"))
    return 5, _build_or_probe(folder, rng)


def asked(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """A file of prompts: names, references and seeds of any kind."""
    suffix = rng.choice(["txt", "csv", "jsonl"])
    rows = [{"text": "a dog", rng.choice(["text", "ref", "neg", "name", "seed"]): traps.words(rng)} for _ in range(3)]
    path = folder / f"p.{suffix}"
    if suffix == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows) + rng.choice(
            ["", '\n{"text": "a", "text": 3}', "\n" + "[" * 9999]
        )
    else:
        text = "text,ref,name\n" * (suffix == "csv") + "\n".join(",".join(map(str, row.values())) for row in rows)
    data = text.encode(errors="surrogatepass")
    path.write_bytes(damage.damaged(data, rng) if rng.random() < 0.3 else data)
    return 1, partial(_named, path)


def _named(path: Path) -> None:
    """The names that samples of these prompts would have; they stay in their folder."""
    from osjax.sampling import names

    for number, request in enumerate(prompts.read(path)):
        for layout in names.LAYOUTS:
            try:
                stem = names.stem(layout, number, request.text, request.name, 0, 2)
            except UserError as error:
                if "\n" in str(error):
                    raise AssertionError("two lines") from error
                continue
            if Path("out", stem).resolve().parent != Path("out").resolve():
                raise AssertionError(f"{stem} leads out of its folder")


def weights(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """Weights: pickles that call, archives that are bombs, headers and indexes that lie, damaged files."""
    path = folder / "w.safetensors"
    data = (sound / "w.safetensors").read_bytes()
    match rng.randrange(7):
        case 0:
            path = folder / "w.pt"
            path.write_bytes(pickle.dumps({"w": _Touching(traps)}, protocol=rng.choice([0, 2, 4])))
        case 1:
            path = folder / "w.pt"
            with zipfile.ZipFile(path, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as out:
                out.writestr("w/data.pkl", pickle.dumps(rng.choice([_Touching(traps), [_Touching(traps)]]), protocol=2))
        case 2:
            path = folder / "w.pt"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
                out.writestr("w/data.pkl", b"\x80\x02" + b"(" * rng.choice([10, 2**22]) + bytes(2**26))
        case 3:
            head = rng.choice([b'{"a":' * 100_000, b"{}", b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,9]}}'])
            size = rng.choice([len(head), 2**63, 2**31, 0])
            path.write_bytes(struct.pack("<Q", size) + head)
        case 4:
            header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
            entry = header[rng.choice([k for k in header if k != "__metadata__"])]
            entry[rng.choice(list(entry))] = rng.choice(
                [[0, 2**62], [2**40, 2**40], None, "F32\0", [], [[1]], -1, "BF16"]
            )
            text = json.dumps(header).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + data[-64:])
        case 5:
            path = folder / "model.safetensors.index.json"
            names = [
                str(traps.outside / "secret.txt"),
                "../outside/secret.txt",
                "x" * 5000,
                "a\0b",
                "model.safetensors",
            ]
            path.write_text(json.dumps({"weight_map": {"a": rng.choice(names), "b": rng.choice(names)}}))
            (folder / "model.safetensors").symlink_to(rng.choice([path, traps.outside / "secret.txt"]))
        case 6:
            path.write_bytes(damage.damaged(data, rng))
    return 1, ["convert", f"--config={sound / 'm.py'}", str(path), str(folder.parent / "out"), "--model=video"]


def adapted(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """Adapters: damaged files, and settings of peft that say anything."""
    path = folder / "adapter_model.safetensors"
    data = (sound / "w.safetensors").read_bytes()
    path.write_bytes(damage.damaged(data, rng) if rng.random() < 0.5 else data)
    said = {"r": 4, "lora_alpha": 4, "target_modules": ["qkv"], "peft_type": "LORA"}
    said[rng.choice(list(said))] = rng.choice([float("nan"), -1, 2**70, [[]], traps.words(rng), None, {"a": {}}])
    text = json.dumps(said).encode()
    (folder / "adapter_config.json").write_bytes(damage.damaged(text, rng) if rng.random() < 0.3 else text)
    cfg = model_config("mmdit", **{k: v for k, v in tiny.DENOISER.items() if k != "family"})
    return 1, partial(adapters.read, rng.choice([folder, path]), cfg)


def checkpoints(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """A checkpoint with a damaged file, or metadata that says something else."""
    path = Path(shutil.copytree(sound / "ckpt", folder / "ckpt"))
    file = rng.choice(sorted(p for p in path.rglob("*") if p.is_file()))
    data = file.read_bytes()
    if file.name == "_METADATA" and rng.random() < 0.5:
        data = data.replace(b"jax.Array", f"{traps.module}.Array".encode()).replace(b"kernel", b"../../x")
    file.write_bytes(damage.damaged(data, rng))
    out = folder.parent / "out.safetensors"
    words = ["convert", f"--config={sound / 'm.py'}", str(path), str(out), "--model=video"]
    return 1, rng.choice([words, partial(_leaves, path)])


def _leaves(path: Path) -> None:
    item = orbax_stream.find(path)
    if item is None:
        raise UserError("no checkpoint")
    leaves = orbax_stream.open_leaves(item)
    for name, shape in leaves.shapes.items():
        leaves.read(name, tuple(slice(0, side) for side in shape))


def tokenizers(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """tokenizer.json with other parts, or damaged."""
    tokenizer_files.write_t5(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    parts = [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "////"}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a|aa)+$"}, "content": "a" * 100}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "7+z"}, "content": ""}},
        {"model": {"type": "Unigram", "unk_id": 2**40, "vocab": [["a", 0.0]]}},
        {"model": {"type": "WordPiece", "vocab": {}, "unk_token": "x", "max_input_chars_per_word": 2**60}},
        {"added_tokens": [{"id": 2**31, "content": "a", "special": True}]},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?<=" + "a?" * 400 + ")"}, "behavior": "Isolated"}},
        {"truncation": {"max_length": 2**63, "stride": 2**62, "strategy": "LongestFirst", "direction": "Right"}},
    ]
    text = json.dumps({**content, **rng.choice(parts)} if rng.random() < 0.6 else content).encode()
    path.write_bytes(text if rng.random() < 0.3 else damage.damaged(text, rng))
    return 1, partial(_tokenized, folder, traps.words(rng))


def _tokenized(folder: Path, text: str) -> None:
    made = tokenize.t5(folder)
    made([text.encode(errors="replace").decode(), "7" * 3000, "a red bus"])


def runs(folder: Path, rng: Rng, traps: Traps, sound: Path) -> tuple[int, Reads]:
    """The folder of a run: metrics with any values, samples that are links, a model.json that leads elsewhere."""
    lines = [{"stage": "a", "step": n, "loss": 1.0, "steps_per_s": 2.0, "skipped": 0} for n in range(4)]
    for line in lines[1:]:
        line[rng.choice(list(line))] = rng.choice(
            [traps.words(rng), float("nan"), None, [], {}, -1, 1e308, 2**70, "<script>alert(1)</script>", True]
        )
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / "metrics.jsonl").write_bytes(damage.damaged(text, rng) if rng.random() < 0.4 else text)
    (folder / "samples").mkdir()
    (folder / "samples" / "a.json").symlink_to(traps.outside / "secret.txt")
    (folder / "samples" / "a.mp4").symlink_to(traps.outside / "secret.ts")
    (folder / "held_out.json").symlink_to(traps.outside / "secret.txt")
    leads = rng.choice([str(traps.outside), "../outside", traps.words(rng), ".", None, 3])
    model = {"family": rng.choice(["mmdit", traps.module]), "config": {}, "checkpoints": leads, "averaged": True}
    told = {"version": 1, "denoiser": model, "autoencoder": None, "latent_scale": {}, "text": None, "settings": {}}
    told[rng.choice(list(told))] = rng.choice([None, [], {"a": 1}, traps.words(rng), {"family": [[1]]}])
    data = json.dumps(told).encode()
    (folder / "model.json").write_bytes(damage.damaged(data, rng) if rng.random() < 0.4 else data)
    return 2, rng.choice([["report", str(folder)], partial(workdir.read, folder)])


KINDS: dict[str, Callable[[Path, Rng, Traps, Path], tuple[int, Reads]]] = {
    "lists as videos": lists,
    "videos and pictures": videos,
    "references": given,
    "records in training": records,
    "data sets": sets,
    "tables": tables,
    "captions": captions,
    "prompts": asked,
    "weights": weights,
    "adapters": adapted,
    "checkpoints": checkpoints,
    "tokenizers": tokenizers,
    "runs": runs,
}
