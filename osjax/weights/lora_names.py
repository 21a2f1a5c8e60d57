"""Names of adapters' tensors in the dialects of other tools, in terms of a model's layers.

A name is a layer and an end. The end says which part of the adapter it is (`ENDS`); the layer is dotted behind the
prefixes of wrappers and pipelines (`PREFIXES`), or written with underscores behind one of kohya's (`FLAT_PREFIXES`).
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from osjax.errors import UserError
from osjax.models.shapes import listed
from osjax.types import Json

MAGNITUDES = "magnitudes"  # the part that makes an adapter a weight-decomposed one

# End of a name -> part. peft keeps the adapter's own name in the middle: `lora_A.default.weight`.
ENDS = (
    (r"\.lora_A(\.[^.]+)?\.weight|\.lora_A", "A"),  # peft, diffusers, ComfyUI, AI-Toolkit
    (r"\.lora_B(\.[^.]+)?\.weight|\.lora_B", "B"),
    (r"\.lora_down\.weight|[._]lora(_linear_layer)?\.down\.weight", "A"),  # kohya, musubi; diffusers before peft
    (r"\.lora_up\.weight|[._]lora(_linear_layer)?\.up\.weight", "B"),
    (r"\.alpha", "alpha"),
    (r"\.lora_magnitude_vector(\.[^.]+)?(\.weight)?|\.dora_scale", MAGNITUDES),  # peft; kohya, LyCORIS and ComfyUI
)
REFUSED = (
    (r"\.hada_w[12]_[ab]|\.hada_t[12]", "LoHa (Hadamard products)"),
    (r"\.lokr_w[12](_[ab])?|\.lokr_t2", "LoKr (Kronecker products)"),
    (r"\.oft_(blocks|diag)|\.oft_[rR](\.weight)?", "OFT (rotations)"),
    (r"\.lora_mid\.weight", "LoCon with a middle matrix (of convolutions)"),
    (r"\.ia3_\w+(\.weight)?", "IA3 (scales of activations)"),
    (r"\.lora_B(\.[^.]+)?\.bias|\.lora_up\.bias", "LoRA with biases"),
    (r"\.lora_embedding_[AB](\.[^.]+)?", "LoRA of embeddings"),
    (r"\.(diff|diff_b|set_weight|w_norm|b_norm|reshape_weight)", "whole differences beside LoRA"),
)
PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "module.",
    "_orig_mod.",
    "model.",
    "unet.",
    "dit.",
)
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_", "lora_unet-", "lora_")
TEXT = ("text_encoder", "text_encoders.", "text_model.", "lora_te", "te1.", "te2.", "cond_stage_model.", "conditioner.")


@dataclass
class Found:
    """One adapted layer of a file. said: its name without wrappers, as peft's patterns see it."""

    said: str
    parts: Json = field(default_factory=dict)  # A, B, alpha, magnitudes: tensors, not read yet


def is_adapter(names: Collection[str]) -> bool:
    """Whether any of these names of tensors is that of an adapter's part; alpha alone is not."""
    pattern = "|".join(f"(?:{end})" for end, part in ENDS + REFUSED if part not in ("alpha", REFUSED[-1][1]))
    return any(re.search(f"(?:{pattern})$", name) for name in names)


def split(path: Path, tensors: Mapping[str, Any]) -> dict[str, Json]:
    """{layer as the file names it: its parts, see `ENDS`}. UserError for anything that is no such part.

    path: for messages. tensors: of the file, by name.
    """
    out: dict[str, Json] = {}
    for name, tensor in tensors.items():
        for end, kind in REFUSED:
            if re.search(f"(?:{end})$", name):
                raise UserError(f"{path} holds {kind}, which osjax does not read ({name}): merge it with its own tool")
        hit = next(((m, part) for end, part in ENDS if (m := re.search(f"(?:{end})$", name))), None)
        if hit is None or (hit[1] in "AB" and (len(tensor.shape) != 2 or not _is_float(tensor))):
            raise UserError(f"{path}: {name} {tuple(tensor.shape)} belongs to no LoRA of dense layers")
        layer, part = name[: hit[0].start()], hit[1]
        if part in out.setdefault(layer, {}):
            raise UserError(f"{path} has two adapters of {layer}: keep one of them")
        out[layer][part] = tensor
    return out


def _is_float(tensor: Any) -> bool:
    return tensor.dtype.kind == "f" or "float" in tensor.dtype.name  # numpy does not count bfloat16 as one


def resolve(layer: str, known: Collection[str], flat: Mapping[str, str]) -> tuple[str | None, str]:
    """(A model's layer that a name of a file is of, or None; the name without wrappers).

    known: the model's layers. flat: the same, with underscores for dots -> layer.
    """
    said, rest = layer, layer
    for count in range(8):  # wrappers within wrappers; eight are more than any tool writes
        if rest in known:
            return rest, said
        for prefix in FLAT_PREFIXES:
            name = rest.removeprefix(prefix).replace("-", "_") if rest.startswith(prefix) else ""
            if name in flat:
                return flat[name], flat[name]
        prefix = next((p for p in PREFIXES if rest.startswith(p)), None)
        if prefix is None:
            break
        rest = rest.removeprefix(prefix)
        if count == 0:  # the tool's own prefix; what is behind it is what the tool saw
            said = rest
    return (flat[rest], flat[rest]) if rest in flat else (None, rest)


def layers(path: Path, parts: Mapping[str, Json], known: Collection[str]) -> dict[str, Found]:
    """The adapted layers of a model by their names in it.

    path: for messages. parts: as `split` gives them. known: the model's layers. UserError for layers that it lacks.
    """
    flat = {name.replace(".", "_"): name for name in known}
    out: dict[str, Found] = {}
    foreign: list[str] = []
    for layer, tensors in parts.items():
        name, said = resolve(layer, known, flat)
        if name is None:
            foreign.append(said)
            continue
        adapted = out.setdefault(name, Found(said))
        if "A" in tensors:
            adapted.said = said
        for part, tensor in tensors.items():
            if part in adapted.parts:
                raise UserError(f"{path} has two adapters of {name}: keep one of them")
            adapted.parts[part] = tensor
    if foreign:
        if any(layer.startswith(TEXT) for layer in parts) or any(layer.startswith(TEXT) for layer in foreign):
            raise UserError(
                f"{path} adapts a text encoder ({listed(foreign, 3)}), which osjax does not: train without that"
            )
        first = listed(foreign, 3)
        raise UserError(f"{path} adapts {first}, which this model does not have: check model and layout")
    return out


def pairs(path: Path, found: Mapping[str, Found]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(A (r, in), B (out, r)) of every layer, read. UserError for a layer that has no pair of one rank."""
    for name, layer in found.items():
        a, b = layer.parts.get("A"), layer.parts.get("B")
        if a is None or b is None or a.shape[0] != b.shape[1] or not a.shape[0]:
            raise UserError(f"{path}: {name} has no pair lora_A, lora_B of one rank")
    if not found:
        raise UserError(f"{path}: no layer has a pair lora_A, lora_B")
    return {name: (np.asarray(x.parts["A"]), np.asarray(x.parts["B"])) for name, x in found.items()}


def magnitudes(path: Path, found: Mapping[str, Found]) -> dict[str, np.ndarray]:
    """(out,) of every weight-decomposed layer, read. UserError for those of columns, which some tools have trained.

    path: for messages. found: the layers, with whole pairs.
    """
    out = {}
    for name, layer in found.items():
        tensor = layer.parts.get(MAGNITUDES)
        if tensor is None:
            continue
        rows = layer.parts["B"].shape[0]
        if tuple(tensor.shape) not in ((rows,), (rows, 1)) or not _is_float(tensor):
            raise UserError(
                f"{path} holds DoRA whose magnitudes of {name} have shape {tuple(tensor.shape)}: osjax reads one for "
                f"each of the {rows} rows; merge it with its own tool"
            )
        out[name] = np.asarray(tensor).astype(np.float32).reshape(rows)
        if not np.isfinite(out[name]).all():
            raise UserError(f"{path}: the magnitudes of {name} are not finite")
    return out
