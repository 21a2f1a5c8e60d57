"""Files of adapters as other tools have them: a folder of peft, or one .safetensors with alphas in it.

Both hold pairs lora_A (r, in), lora_B (out, r) under the names of the original's layers (`weights/lora.py`). Ours say
in their header what they were trained as, so that reading gives back the same bits.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from osjax import atomic
from osjax.errors import UserError
from osjax.models.lora import LoRAConfig
from osjax.models.mmdit.config import MMDiTConfig
from osjax.weights import io, lora, safetensors_file
from osjax.weights.layout import OPEN_SORA_V2, Layout
from osjax.weights.lora import Adapters, Modules

OWN = "osjax_lora"  # in the header of our files: the config
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT, SINGLE = "base_model.model.", "diffusion_model."  # before names in a folder of peft; in one file
PREFIXES = (PEFT, SINGLE, "transformer.")
PARTS = {"lora_A": "A", "lora_down": "A", "lora_B": "B", "lora_up": "B"}
MAX_CONFIG = 2**24  # bytes


def write(out: Path, cfg: MMDiTConfig, adapters: Adapters, layout: Layout = OPEN_SORA_V2) -> list[Path]:
    """Write adapters of the MMDiT `cfg`; the paths of the files.

    out: a .safetensors, which gets the alphas as well, or a folder as peft has it. layout: of the names.
    """
    single = out.suffix == ".safetensors"
    modules = lora.to_torch(cfg, adapters, layout)
    prefix, tensors = SINGLE if single else PEFT, {}
    for name, (a, b) in modules.items():
        tensors |= {f"{prefix}{name}.lora_A.weight": a, f"{prefix}{name}.lora_B.weight": b}
        if single:
            tensors[f"{prefix}{name}.alpha"] = np.float32(adapters.cfg.scale * len(a)).reshape(())
    path = out if single else out / PEFT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {name: (tuple(x.shape), x.dtype) for name, x in tensors.items()}
    safetensors_file.write(path, about, tensors.__getitem__, {OWN: json.dumps(asdict(adapters.cfg))})
    if single:
        return [path]
    ranks = {name: len(a) for name, (a, _) in modules.items() if len(a) != adapters.cfg.rank}
    content = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": adapters.cfg.rank,
        "lora_alpha": adapters.cfg.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(modules),
        "rank_pattern": ranks,
        "alpha_pattern": {name: adapters.cfg.scale * rank for name, rank in ranks.items()},
        "inference_mode": True,
    }
    atomic.write_text(out / PEFT_CONFIG, json.dumps(content, indent=2) + "\n")
    return [path, out / PEFT_CONFIG]


def is_adapter(path: Path) -> bool:
    """Whether the file at `path` is a .safetensors with pairs of adapters."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    return any(f".{part}." in name for name in io.open_tensors(path) for part in PARTS)


def read(path: Path, cfg: MMDiTConfig, layout: Layout = OPEN_SORA_V2) -> Adapters:
    """The adapters of the MMDiT `cfg` in a .safetensors or in a folder of peft.

    path: that file or folder. layout: of its names. UserError for what does not fit.
    """
    path = Path(path)
    settings = {}
    if path.is_dir():
        settings = _json(path / PEFT_CONFIG)
        path = path / PEFT_FILE
    tensors = io.open_tensors(path)
    own = safetensors_file.metadata(path).get(OWN)
    modules = _modules(path, tensors)
    if own is not None:
        try:
            fields = json.loads(own)
            lora_cfg = LoRAConfig(**{**fields, "targets": tuple(fields["targets"])})
        except (ValueError, TypeError, KeyError, UserError) as error:
            raise UserError(f"{path} has a damaged header ({error}): export it again") from error
        return lora.from_own(path, cfg, lora_cfg, modules, layout)
    return lora.from_foreign(path, cfg, modules, _scales(path, modules, tensors, settings), layout)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError("too large")
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or content.get("peft_type", "LORA") != "LORA":
            raise ValueError("no LoRA")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is no config of an adapter ({error}): give a folder of peft or a .safetensors"
        ) from error


def _modules(path: Path, tensors: Mapping[str, Any]) -> Modules:
    """(A, B) of every layer by its name. UserError for anything that is neither such a pair nor an alpha."""
    pairs: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        bare = next((name[len(p) :] for p in PREFIXES if name.startswith(p)), name)
        module, _, kind = bare.removesuffix(".weight").rpartition(".")
        if kind in PARTS and len(tensor.shape) == 2:
            pairs.setdefault(module, {})[PARTS[kind]] = np.asarray(tensor)
        elif kind != "alpha":
            raise UserError(f"{path}: {name} {tuple(tensor.shape)} belongs to no LoRA of dense layers")
    alone = [module for module, pair in pairs.items() if len(pair) != 2 or len(pair["A"]) != pair["B"].shape[1]]
    if alone or not pairs:
        raise UserError(f"{path}: {alone[0] if alone else 'nothing'} has no pair lora_A, lora_B of one rank")
    return {module: (pair["A"], pair["B"]) for module, pair in pairs.items()}


def _scales(path: Path, modules: Modules, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, float]:
    """alpha / rank of every layer: from the file, else from peft's settings, else 1."""
    out = {}
    try:
        for module, (a, _) in modules.items():
            names = [f"{prefix}{module}.alpha" for prefix in ("", *PREFIXES)]
            stored = [tensors[name] for name in names if name in tensors]
            alpha = settings.get("alpha_pattern", {}).get(module, settings.get("lora_alpha", len(a)))
            alpha = float(np.asarray(stored[0]).reshape(())) if stored else float(alpha)
            out[module] = alpha / (np.sqrt(len(a)) if settings.get("use_rslora") else len(a))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: the scales of its adapters cannot be read ({error})") from error
    return out
