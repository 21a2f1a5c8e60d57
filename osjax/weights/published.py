"""What a file of weights is, by its names: quantised, an adapter, or in a layout that is known elsewhere."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from osjax.errors import UserError
from osjax.weights import lora_names

# End of a tensor's name -> how the weights are stored.
QUANTISED = (
    (r"\.quant_state\.bitsandbytes__nf4", "NF4 weights (bitsandbytes, 4 bits)"),
    (r"\.quant_state\.bitsandbytes__fp4", "FP4 weights (bitsandbytes, 4 bits)"),
    (r"\.(nested_)?(absmax|quant_map)", "4-bit weights (bitsandbytes, NF4 or FP4)"),
    (r"\.(SCB|weight_format)", "int8 weights (bitsandbytes)"),
    (r"(^|\.)scaled_fp8|\.scale_(weight|input)", "scaled fp8 weights (ComfyUI, kijai)"),
    (r"\.(weight_scale(_inv|_2)?|input_scale|comfy_quant)", "scaled fp8 or int8 weights"),
    (r"\.(qweight|qzeros|g_idx)", "GPTQ or AWQ weights"),
    (r"\.(_data|_scale|base_type)", "quanto weights"),
    (r"\.(wscales|smooth_factor|smooth)", "SVDQuant weights (nunchaku)"),
    (r"\.W_q", "HQQ weights"),
)
# A name in a file -> what has such names, and what to do.
KNOWN = (
    (
        r"context_embedder\.token_refiner|x_embedder\.proj\.",
        "diffusers' HunyuanVideoTransformer3DModel, which is another model",
    ),
    (
        r"single_transformer_blocks\.\d+\.|transformer_blocks\.\d+\.attn\.add_q_proj",
        "diffusers' FluxTransformer2DModel: layout flux_diffusers reads it",
    ),
    (r"double_blocks\.\d+\.img_attn\.qkv", "FLUX in its own layout: layout flux reads it"),
    (r"double_blocks\.\d+\.img_attn\.q_proj", "Open-Sora v2: layout open_sora_v2 reads it"),
    (r"double_blocks\.\d+\.img_attn_qkv", "HunyuanVideo's transformer, which is another model"),
    (r"(^|\.)blocks\.\d+\.(self|cross)_attn\.", "Wan's transformer, which is another model"),
    (r"(input|output)_blocks\.\d+\.|down_blocks\.\d+\.attentions\.", "a UNet of Stable Diffusion"),
    (
        r"(encoder\.down|decoder\.up)_blocks\.\d+\.resnets\.\d+\.conv1\.weight",
        "diffusers' AutoencoderKL: give the original's file (ae.safetensors)",
    ),
    (
        r"(encoder\.down|decoder\.up)_blocks\.\d+\.resnets\.\d+\.conv1\.conv\.",
        "the HunyuanVideo autoencoder (family hunyuan)",
    ),
    (
        r"(encoder\.down|decoder\.up)_blocks\.\d+\.\d+\.",
        "diffusers' AutoencoderDC: give the original's file",
    ),
    (r"encoder\.down\.\d+\.block\.\d+\.", "the FLUX autoencoder (family flux_ae)"),
    (r"(encoder|decoder)\.stages\.\d+\.", "a DC-AE (family dcae)"),
    (r"encoder\.block\.\d+\.layer\.\d+\.", "T5 (family t5)"),
    (r"text_model\.encoder\.layers\.", "CLIP's text tower (family clip_text)"),
    (r"vision_model\.encoder\.layers\.", "CLIP's vision tower (family clip_vision)"),
    (r"transformer\.resblocks\.", "CLIP as open_clip stores it: give the folder in the Hugging Face layout"),
)


def check(path: Path, tensors: Mapping[str, Any], expected: Collection[str]) -> None:
    """UserError for quantised weights, and for adapters in place of a model, which says what they are.

    path: for messages. tensors: of the file, by name. expected: names of the model, which are never a sign.
    """
    names = [name for name in tensors if name not in expected]
    for end, kind in QUANTISED:
        if hit := next((name for name in names if re.search(f"(?:{end})$", name)), None):
            _refuse(path, kind, hit)
    if len(names) == len(tensors) and lora_names.is_adapter(names):
        raise UserError(
            f"{path} holds adapters (LoRA), no model: give the model here, and this as its adapter "
            "(`convert --adapter`, config key `adapter`)"
        )


def check_types(path: Path, tensors: Mapping[str, Any], expected: Collection[str]) -> None:
    """UserError for weights that are stored as whole numbers.

    path: for messages. tensors: by the model's names. expected: those names.
    """
    for name, tensor in tensors.items():
        if name in expected and name.endswith((".weight", ".bias", ".scale")) and tensor.dtype.kind in "iub":
            _refuse(path, f"weights stored as {tensor.dtype.name}, a quantised file of unknown kind", name)


def _refuse(path: Path, kind: str, name: str) -> None:
    raise UserError(
        f"{path} holds {kind} ({name[:120]}): osjax reads bfloat16, float16 and float32, fetch it as one of them"
    )


def looks_like(names: Collection[str]) -> str:
    """What has such names, as the end of a message; empty where nothing known has."""
    for pattern, what in KNOWN:
        if any(re.search(pattern, name) for name in names):
            return f" Its names look like {what}."
    return ""
