"""`osjax convert IN OUT`: weight files with the original's names to osjax checkpoints, and back, and to Hugging Face.

Streams: at any time one tensor, or one block of a stacked leaf, is in memory. What lies where is said in
`weights/io.py` (files with the original's names) and `weights/orbax_stream.py` (checkpoints). Where IN holds adapters
(LoRA), OUT does, too, in the form of peft, diffusers or ComfyUI.
"""

import shlex
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from osjax import lock
from osjax.errors import UserError

DTYPES = {"bf16": "bfloat16", "bfloat16": "bfloat16", "float32": "float32"}
TARGETS = ("orbax", "safetensors")
FORMS = ("peft", "diffusers", "comfyui")


def add_options(parser) -> None:
    parser.add_argument(
        "source",
        metavar="IN",
        help="a .safetensors, a PyTorch .pt, .pth or .bin, a folder or an index of such files, an osjax checkpoint, "
        "or the workdir of a finished run",
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        help="a folder that does not exist yet; or a .safetensors, to have all tensors in one file; or hf://OWNER/NAME "
        "to upload to a private repository with a card of the model",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="a group of the config: which model it is; a finished run says so itself"
    )
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="of the result; without it every tensor keeps its own")
    parser.add_argument(
        "--layout",
        help="of attention weights in files: open_sora_v2, flux or flux_diffusers (default: the model's)",
    )
    parser.add_argument("--to", choices=TARGETS, help="default: a checkpoint from files, files from a checkpoint")
    parser.add_argument(
        "--start-from",
        metavar="NAME",
        help="IN holds this other model, which --model starts from: flux_dev for open_sora_v2, say",
    )
    parser.add_argument("--adapter", metavar="PATH", help="LoRA to add to the weights of IN")
    parser.add_argument(
        "--form",
        choices=FORMS,
        help="of adapters (LoRA): peft is a folder with settings, diffusers one file with settings in its header, "
        "comfyui one file with alphas (default: comfyui where OUT is a .safetensors, else peft)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of layers that --start-from makes anew")
    parser.add_argument("--shard-gb", type=float, default=5.0, help="largest file of a folder of safetensors, in GB")
    parser.add_argument(
        "--license", metavar="ID", help="of what is uploaded, such as apache-2.0; without it none is stated"
    )
    parser.add_argument("--public", action="store_true", help="upload for everybody to see")


@dataclass(frozen=True)
class Source:
    """What is converted. path: of it. model: a `NamedModel`. run: the workdir of the run that it is of, or None."""

    path: Path
    model: Any
    run: Path | None


def run(cfg: ConfigDict, args) -> None:
    began = time.monotonic()
    from osjax.parts import hub

    pins: dict[str, str] = {}
    args.source, args.adapter = (hub.local(p, pins) if hub.is_hub(p) else p for p in (args.source, args.adapter))
    if not Path(args.source).exists():
        raise UserError(f"{args.source} does not exist: give weight files or an osjax checkpoint to read", status=2)
    if not args.shard_gb > 0:
        raise UserError(f"--shard-gb={args.shard_gb:g} must be more than 0", status=2)
    if hub.is_hub(args.out):
        return _publish(cfg, args)
    for name in ("license", "public"):
        if getattr(args, name):
            raise UserError(f"--{name} is for what is uploaded, and {args.out} is no hf://OWNER/NAME", status=2)
    out = Path(args.out)
    with lock.held(out.absolute().parent, "osjax convert", name=f".{out.name}"):
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise UserError(f"{out} exists: remove it, or name another place to write to", status=2)
        print(_convert(cfg, args, _source(cfg, args), out, began)[0])


def _source(cfg: ConfigDict, args) -> Source:
    # After the cheap checks: these import jax and Orbax.
    from osjax.parts import named_model
    from osjax.sampling import workdir

    path = Path(args.source)
    if (path / workdir.FILE).is_file() and not args.model:
        return Source(*named_model.of_run(path, args.layout), path)
    if not args.model:
        raise UserError(f"{path} does not say which model it holds: give --model, such as open_sora_v2", status=2)
    return Source(path, named_model.of_config(cfg, args.model, args.layout if not args.start_from else None), None)


def _publish(cfg: ConfigDict, args) -> None:
    """Convert to a folder that is soon forgotten, and upload that with a card."""
    from osjax.parts import hub_upload, model_card, publish
    from osjax.weights import adapters

    model_card.check_licence(args.license)
    if args.to == "orbax":
        raise UserError("a repository takes safetensors: leave --to=orbax out", status=2)
    source, began = _source(cfg, args), time.monotonic()
    name = hub_upload.begin(args.out, args.public)
    with tempfile.TemporaryDirectory(prefix="osjax-upload-") as made:
        folder = Path(made)
        args.to = None if adapters.is_adapter(source.path) else "safetensors"
        single = args.to is None and args.form in ("comfyui", "diffusers")
        told, lora = _convert(cfg, args, source, folder / "adapters.safetensors" if single else folder, began)
        about = publish.About(source.path, source.model.config, source.run, lora, args.license)
        card = publish.write(folder, name, about)
        commit = hub_upload.upload(args.out, name, folder)
    print(told.replace(made, args.out))
    print(f"{args.out}@{commit}: {'public' if args.public else 'private'}; to sample from it:")
    print(shlex.join(card.command()))


def _convert(cfg: ConfigDict, args, source: Source, out: Path, began: float) -> tuple[str, Any]:
    """Convert; a line that says what was written, and the `LoRAConfig` of adapters."""
    from osjax.parts import named_model
    from osjax.weights import adapters, convert

    path, model = source.path, source.model
    if adapters.is_adapter(path):
        given = [
            f"--{name}" for name in ("dtype", "to", "start-from", "adapter") if getattr(args, name.replace("-", "_"))
        ]
        if given:
            raise UserError(f"{given[0]} is for whole models, and {path} holds adapters: leave it out", status=2)
        lora, size = convert.adapter(path, out, model.config, model.layout, args.form)
        return f"{out}: adapters of rank {lora.rank}, alpha {lora.alpha:g}, {size / 1e6:.1f} MB", lora
    if args.form:
        raise UserError(f"--form is for adapters, and {path} holds a whole model: leave it out", status=2)
    start_from = named_model.of_config(cfg, args.start_from, args.layout) if args.start_from else None
    leaves = convert.open_source(
        path,
        model.config,
        model.layout,
        start_from=start_from and (start_from.config, start_from.layout),
        seed=args.seed,
        adapter=Path(args.adapter) if args.adapter else None,
    )
    leaves = leaves.cast(convert.numpy_dtype(args.dtype and DTYPES[args.dtype]))
    to = args.to or convert.other_form(path)
    done = convert.write(leaves, out, to, model.config, model.layout, int(args.shard_gb * 1e9), model.says)
    what = "an osjax checkpoint" if to == "orbax" else f"{done.files} file{'s' if done.files > 1 else ''}"
    seconds = time.monotonic() - began
    return f"{out}: {leaves.parameters():,} parameters as {what}, {done.bytes / 1e9:.2f} GB in {seconds:.1f} s", None
