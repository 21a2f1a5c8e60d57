"""Files of adapters in the forms of other tools: read in any dialect, written in three.

What names mean is in `lora_names`, where the scale lies in `lora_scales`, what the pairs are to the model in `lora`.
Ours say in their header what they were trained as, so that reading gives back the same bits.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from osjax import atomic, json_file
from osjax.errors import UserError
from osjax.models.lora import LoRAConfig
from osjax.models.mmdit.config import MMDiTConfig
from osjax.types import Json
from osjax.weights import io, lora, lora_names, lora_scales, safetensors_file
from osjax.weights.layout import FLUX, FLUX_DIFFUSERS, LAYOUTS, OPEN_SORA_V2, Layout
from osjax.weights.lora import Adapters

OWN = "osjax_lora"  # in the header of our files: the config
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
FILES = (PEFT_FILE, "adapter_model.bin", DIFFUSERS_FILE)  # that a folder may hold
FORMS = {"peft": "base_model.model.", "diffusers": "transformer.", "comfyui": "diffusion_model."}  # prefix of names
MAX_CONFIG = 2**24  # bytes


def form_of(out: Path, form: str | None) -> str:
    """The form to write: as asked for, else ComfyUI's in one file and peft's in a folder.

    UserError (status 2) for a form that does not go with the place `out`.
    """
    single = out.suffix == ".safetensors"
    form = form or ("comfyui" if single else "peft")
    if form not in FORMS:
        raise UserError(f"form {form!r} of adapters is unknown: use one of {', '.join(FORMS)}", status=2)
    if single == (form == "peft") and form != "diffusers":
        wanted = "a folder" if single else "a .safetensors"
        raise UserError(f"{out} cannot hold adapters in {form} form: name {wanted}", status=2)
    return form


def write(
    out: Path, cfg: MMDiTConfig, adapters: Adapters, layout: Layout = OPEN_SORA_V2, form: str | None = None
) -> list[Path]:
    """Write adapters of the MMDiT `cfg`; the paths of the files.

    out: a .safetensors, or a folder. layout: of the names. form: peft (a folder with its settings), diffusers (settings
    in the header, its own names for FLUX), comfyui (one file with alphas), or None, see `form_of`.
    """
    form = form_of(out, form)
    if form == "diffusers" and layout == FLUX:
        layout = FLUX_DIFFUSERS  # the only model of this kind that diffusers has
    modules = lora.to_torch(cfg, adapters, layout)
    tensors: dict[str, np.ndarray] = {}
    for name, (a, b) in modules.items():
        root = f"{FORMS[form]}{name}"
        tensors |= {f"{root}.lora_A.weight": a, f"{root}.lora_B.weight": b}
        if form == "comfyui":
            tensors[f"{root}.alpha"] = np.float32(adapters.cfg.scale * len(a)).reshape(())
    settings = _settings(adapters.cfg, {name: len(a) for name, (a, _) in modules.items()})
    texts = {OWN: json.dumps(asdict(adapters.cfg))}
    if form == "diffusers":
        said = {f"{FORMS[form]}{key}": value for key, value in settings.items()}
        texts[lora_scales.METADATA] = json.dumps(said, indent=2, sort_keys=True)
    folder_file = DIFFUSERS_FILE if form == "diffusers" else PEFT_FILE
    path = out if out.suffix == ".safetensors" else out / folder_file
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {name: (tuple(x.shape), x.dtype) for name, x in tensors.items()}
    safetensors_file.write(path, about, tensors.__getitem__, texts)
    if form != "peft":
        return [path]
    atomic.write_text(out / PEFT_CONFIG, json.dumps(settings, indent=2) + "\n")
    return [path, out / PEFT_CONFIG]


def _settings(cfg: LoRAConfig, ranks: Mapping[str, int]) -> Json:
    """What peft's LoraConfig says of adapters. ranks: of the layers."""
    unlike = {name: rank for name, rank in ranks.items() if rank != cfg.rank}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": cfg.rank,
        "lora_alpha": cfg.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(ranks),
        "rank_pattern": unlike,
        "alpha_pattern": {name: cfg.scale * rank for name, rank in unlike.items()},
        "inference_mode": True,
    }


def is_adapter(path: Path) -> bool:
    """Whether a weight file holds adapters, or a folder has peft's settings or a file by one of the usual names."""
    if path.is_dir():
        return any((path / name).is_file() for name in (PEFT_CONFIG, *FILES))
    return path.is_file() and lora_names.is_adapter(io.open_tensors(path))


def read(path: Path, cfg: MMDiTConfig, layout: Layout = OPEN_SORA_V2) -> Adapters:
    """The adapters of the MMDiT `cfg` in a weight file, or in a folder of peft or diffusers.

    path: that file or folder. layout: of its names; those of diffusers' FLUX tell themselves apart. UserError for what
    does not fit or has a scale that is not understood.
    """
    path, settings = _locate(Path(path))
    tensors = io.open_tensors(path)
    header = safetensors_file.metadata(path) if path.suffix == ".safetensors" else {}
    parts = lora_names.split(path, tensors)
    layers, layout = _layers(path, parts, cfg, layout)
    modules = lora_names.pairs(path, layers)
    scales = lora_scales.of_layers(path, layers, settings, {k: v for k, v in header.items() if k != OWN})
    magnitudes = lora_names.magnitudes(path, layers)
    if OWN in header and not magnitudes:
        own = _own(path, header[OWN])
        if all(math.isclose(scale, own.scale, rel_tol=1e-5) for scale in scales.values()):
            return lora.from_own(path, cfg, own, modules, layout)
    # Ours, too, where somebody has changed its scale.
    return lora.from_foreign(path, cfg, modules, scales, layout, magnitudes)


def _own(path: Path, text: str) -> LoRAConfig:
    """What our files say in their header that they were trained as."""
    try:
        fields = json_file.parse(text)
        own = LoRAConfig(**{**fields, "targets": tuple(fields["targets"])})
        if not math.isfinite(own.alpha):
            raise ValueError(f"alpha is {own.alpha}")
        return own
    except (ValueError, TypeError, KeyError, UserError) as error:
        raise UserError(f"{path} has a damaged header ({error}): export it again") from error


def _locate(path: Path) -> tuple[Path, Json | None]:
    """The file with the tensors and peft's settings beside it, None where there are none."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        named = [path / name for name in FILES if (path / name).is_file()]
        path = named[0] if named else path / PEFT_FILE
    mine = path.name in FILES[:2] or [p.name for p in folder.glob("*.safetensors")] == [path.name]
    wanted = path.name in FILES[:2] and not path.is_file()  # its absence is the settings' to tell first
    return path, _json(folder / PEFT_CONFIG) if wanted or (mine and (folder / PEFT_CONFIG).is_file()) else None


def _layers(path: Path, parts: Mapping, cfg: MMDiTConfig, layout: Layout) -> tuple[dict, Layout]:
    """The adapted layers, and the layout that their names are of: the one given, or diffusers' FLUX."""
    try:
        return lora_names.layers(path, parts, lora.layer_names(cfg, layout)), layout
    except UserError as error:
        fitting = []
        for name, other in LAYOUTS.items():
            try:
                layers = lora_names.layers(path, parts, lora.layer_names(cfg, other))
            except UserError:
                continue
            if other.diffusers:
                return layers, other
            fitting.append(name)
        hint = f" (its names are those of layout {fitting[0]})" if fitting else ""
        raise UserError(f"{error}{hint}") from error


def _json(path: Path) -> Json:
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError("too large")
        content = json_file.parse(path.read_text())
        if content.get("peft_type", "LORA") != "LORA":
            raise ValueError("no LoRA")
        return content
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is no config of an adapter ({error}): give a folder of peft or a .safetensors"
        ) from error
