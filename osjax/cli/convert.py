"""`osjax convert IN OUT --model=NAME`: weight files with the original's names to osjax checkpoints, and back.

Streams: at any time one tensor, or one block of a stacked leaf, is in memory. What lies where is said in
`weights/io.py` (files with the original's names) and `weights/orbax_stream.py` (checkpoints). Where IN holds adapters
(LoRA), OUT does, too, in the form of peft, diffusers or ComfyUI.
"""

import time
from pathlib import Path

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
        help="a .safetensors, a PyTorch .pt, .pth or .bin, a folder or an index of such files, or an osjax checkpoint",
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        help="a folder that does not exist yet; or a .safetensors, to have all tensors in one file",
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="a group of the config: which model it is")
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


def run(cfg: ConfigDict, args) -> None:
    began = time.monotonic()
    from osjax.parts import hub

    pins: dict[str, str] = {}
    args.source, args.adapter = (hub.local(p, pins) if hub.is_hub(p) else p for p in (args.source, args.adapter))
    out = Path(args.out)
    with lock.held(out.absolute().parent, "osjax convert", name=f".{out.name}"):
        _convert(cfg, args, Path(args.source), out, began)


def _convert(cfg: ConfigDict, args, source: Path, out: Path, began: float) -> None:
    _check_paths(source, out, args.shard_gb)

    # After the cheap checks: these import jax and Orbax.
    from osjax.parts import named_model
    from osjax.weights import adapters, convert

    model = named_model.of_config(cfg, args.model, args.layout if not args.start_from else None)
    if adapters.is_adapter(source):
        given = [
            f"--{name}" for name in ("dtype", "to", "start-from", "adapter") if getattr(args, name.replace("-", "_"))
        ]
        if given:
            raise UserError(f"{given[0]} is for whole models, and {source} holds adapters: leave it out", status=2)
        lora, size = convert.adapter(source, out, model.config, model.layout, args.form)
        print(f"{out}: adapters of rank {lora.rank}, alpha {lora.alpha:g}, {size / 1e6:.1f} MB")
        return
    if args.form:
        raise UserError(f"--form is for adapters, and {source} holds a whole model: leave it out", status=2)
    start_from = named_model.of_config(cfg, args.start_from, args.layout) if args.start_from else None
    leaves = convert.open_source(
        source,
        model.config,
        model.layout,
        start_from=start_from and (start_from.config, start_from.layout),
        seed=args.seed,
        adapter=Path(args.adapter) if args.adapter else None,
    )
    leaves = leaves.cast(convert.numpy_dtype(args.dtype and DTYPES[args.dtype]))
    to = args.to or convert.other_form(source)
    done = convert.write(leaves, out, to, model.config, model.layout, int(args.shard_gb * 1e9), model.says)
    what = "an osjax checkpoint" if to == "orbax" else f"{done.files} file{'s' if done.files > 1 else ''}"
    seconds = time.monotonic() - began
    print(f"{out}: {leaves.parameters():,} parameters as {what}, {done.bytes / 1e9:.2f} GB in {seconds:.1f} s")


def _check_paths(source: Path, out: Path, shard_gb: float) -> None:
    if not source.exists():
        raise UserError(f"{source} does not exist: give weight files or an osjax checkpoint to read", status=2)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists: remove it, or name another place to write to", status=2)
    if not shard_gb > 0:
        raise UserError(f"--shard-gb={shard_gb:g} must be more than 0", status=2)
