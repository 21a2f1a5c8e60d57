"""`osjax convert IN OUT --model=NAME`: weight files with the original's names to osjax checkpoints, and back.

Streams: at any time one tensor, or one block of a stacked leaf, is in memory. What lies where is said in
`weights/io.py` (files with the original's names) and `weights/orbax_stream.py` (checkpoints). Where IN holds adapters
(LoRA), OUT does, too: a folder as peft has it, or a .safetensors.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from osjax.errors import UserError

DTYPES = {"bf16": "bfloat16", "bfloat16": "bfloat16", "float32": "float32"}
TARGETS = ("orbax", "safetensors")


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
    parser.add_argument("--layout", help="of attention weights in files: open_sora_v2 or flux (default: the model's)")
    parser.add_argument("--to", choices=TARGETS, help="default: a checkpoint from files, files from a checkpoint")
    parser.add_argument(
        "--start-from",
        metavar="NAME",
        help="IN holds this other model, which --model starts from: flux_dev for open_sora_v2, say",
    )
    parser.add_argument("--adapter", metavar="PATH", help="LoRA to add to the weights of IN")
    parser.add_argument("--seed", type=int, default=0, help="of layers that --start-from makes anew")
    parser.add_argument("--shard-gb", type=float, default=5.0, help="largest file of a folder of safetensors, in GB")


def run(cfg: ConfigDict, args) -> None:
    began = time.monotonic()
    source, out = Path(args.source), Path(args.out)
    _check_paths(source, out, args.shard_gb)
    model_cfg, layout = _model(cfg, args.model, args.layout if not args.start_from else None)

    # After the cheap checks: these import jax and Orbax.
    from osjax import weights
    from osjax.run import adapters
    from osjax.weights import init, orbax_stream
    from osjax.weights.load import open_leaves
    from osjax.weights.lora import merged

    if adapters.is_adapter(source):
        _convert_adapter(source, out, model_cfg, layout, args)
        return
    if args.start_from:
        other, other_layout = _model(cfg, args.start_from, args.layout)
        leaves = init.from_model(model_cfg, open_leaves(other, source, layout=other_layout), args.seed)
    else:
        leaves = open_leaves(model_cfg, source, layout=layout)
    if args.adapter:
        leaves = merged(leaves, adapters.read(Path(args.adapter), model_cfg, layout))
    leaves = leaves.cast(_numpy_dtype(args.dtype))
    to = args.to or ("safetensors" if orbax_stream.find(source) else "orbax")
    if to == "orbax" and out.suffix == ".safetensors":
        raise UserError(f"{out} cannot be a checkpoint: name a folder, or ask for --to=safetensors", status=2)
    try:
        if to == "orbax":
            orbax_stream.save(out, leaves, {"model": args.model, **_group(cfg, args.model).to_dict()})
            what = "an osjax checkpoint"
        else:
            files = _export(weights.table(model_cfg, layout), leaves, out, args.shard_gb)
            what = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    except BaseException:
        _remove(out)
        raise
    seconds, size = time.monotonic() - began, _size(out) / 1e9
    print(f"{out}: {leaves.parameters():,} parameters as {what}, {size:.2f} GB in {seconds:.1f} s")


def _convert_adapter(source: Path, out: Path, model_cfg, layout, args) -> None:
    from osjax.run import adapters
    from osjax.weights import lora_file

    given = [f"--{name}" for name in ("dtype", "to", "start-from", "adapter") if getattr(args, name.replace("-", "_"))]
    if given:
        raise UserError(f"{given[0]} is for whole models, and {source} holds adapters: leave it out", status=2)
    found = adapters.read(source, model_cfg, layout)
    lora_file.write(out, model_cfg, found, layout)
    print(f"{out}: adapters of rank {found.cfg.rank}, alpha {found.cfg.alpha:g}, {_size(out) / 1e6:.1f} MB")


def _export(table, leaves, out: Path, shard_gb: float) -> list[Path]:
    from osjax.weights.io import save_tensors
    from osjax.weights.leaves import to_tensors

    tensors, fetch = to_tensors(table, leaves)
    return save_tensors(out, tensors, fetch, int(shard_gb * 1e9))


def _check_paths(source: Path, out: Path, shard_gb: float) -> None:
    if not source.exists():
        raise UserError(f"{source} does not exist: give weight files or an osjax checkpoint to read", status=2)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists: remove it, or name another place to write to", status=2)
    if not shard_gb > 0:
        raise UserError(f"--shard-gb={shard_gb:g} must be more than 0", status=2)


def _group(cfg: ConfigDict, name: str) -> ConfigDict:
    from osjax.run.config import nearest

    if name not in cfg or not isinstance(cfg[name], ConfigDict) or "family" not in cfg[name]:
        close = nearest(name, cfg)
        mend = f"did you mean {close}?" if close else f"the config has {', '.join(cfg)}"
        raise UserError(f"unknown model {name}: {mend}", status=2)
    return cfg[name]


def _model(cfg: ConfigDict, name: str, layout_name: str | None) -> tuple[Any, Any]:
    """Configuration of a named model, and the layout of its files."""
    from osjax import models, weights
    from osjax.run.config import to_dataclass

    group = _group(cfg, name)
    key, layout_name = ("--layout", layout_name) if layout_name else (f"{name}.layout", group.get("layout"))
    layout = weights.layout_named(layout_name, key) if layout_name else weights.OPEN_SORA_V2
    if layout_name and group.family != "mmdit":
        raise UserError(f"--layout is for diffusion models; {name} has only one", status=2)
    fields = group.get("config") or ConfigDict()
    return to_dataclass(models.config_class(group.family), fields, f"{name}.config"), layout


def _numpy_dtype(name: str | None):
    import jax.numpy as jnp

    return None if name is None else jnp.dtype(DTYPES[name])


def _size(out: Path) -> int:
    return sum(p.stat().st_size for p in ([out] if out.is_file() else out.rglob("*")) if p.is_file())


def _remove(out: Path) -> None:
    """What a failed conversion leaves; OUT was not there before, or empty."""
    out.with_name(out.name + ".part").unlink(missing_ok=True)
    if out.is_dir():
        shutil.rmtree(out)
