"""Where the scale of adapters lies, by dialect; what is there but not understood is refused, never taken as 1.

    an `alpha` tensor beside each pair   alpha / rank     kohya, musubi, ComfyUI
    adapter_config.json beside the file  peft's rule      peft
    `lora_adapter_metadata` in the header    peft's rule      diffusers
    `ss_network_alpha` in the header     alpha / rank     kohya, where no pair has an alpha of its own
    none of these                        1                AI-Toolkit and others, which train with alpha = rank

peft's rule: alpha / rank, or alpha / sqrt(rank) with use_rslora; the first key of `alpha_pattern` and `rank_pattern`
that fits the end of the layer's name, as a regular expression from a dot on, replaces lora_alpha and r.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import regex

from osjax.errors import UserError
from osjax.types import Json
from osjax.weights.lora_names import MAGNITUDES, Found

METADATA = "lora_adapter_metadata"  # in the header of files that diffusers writes
COMPONENTS = ("transformer.", "")  # before the keys there
PEFT_ALPHA = 8  # where its settings do not say
ALPHA, DIM = "ss_network_alpha", "ss_network_dim"
SCALE_WORDS = re.compile(
    r"alpha(?!_?mask)|rs_?lora|lora_?(scale|scaling|weight|strength)|network_?(scale|multiplier)|^scal", re.I
)
# Settings of peft that change what an adapter adds, and the values with which they do not.
PLAIN: dict[str, tuple] = {
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "use_qalora": (False, None),
    "bias": ("none", None),
    "layer_replication": (None, []),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, []),
    "alora_invocation_tokens": (None, []),
    "use_bdlora": (None, False),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "velora_config": (None,),
}
RESIDUAL = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that change the model beneath


def of_layers(
    path: Path, found: Mapping[str, Found], settings: Mapping[str, Any] | None, header: Mapping[str, str]
) -> dict[str, float]:
    """What A and B's product is multiplied with, by layer.

    path: for messages. found: the layers. settings: of adapter_config.json, None where there is none. header: texts in
    the file's header. UserError for scales that are there but not understood.
    """
    ranks = {name: layer.parts["A"].shape[0] for name, layer in found.items()}
    if METADATA in header:
        settings = _of_header(path, header[METADATA]) if settings is None else settings
    alphas = {name: _alpha(path, name, layer.parts["alpha"]) for name, layer in found.items() if "alpha" in layer.parts}
    _check_header(path, header, len(alphas) == len(found))
    if alphas and len(alphas) < len(found):
        lacking = min(found.keys() - alphas.keys())
        raise UserError(f"{path} has an alpha of some layers and none of {lacking}: its scale is not known")
    stored = {name: alpha / ranks[name] for name, alpha in alphas.items()}
    if settings is not None:
        if settings.get("use_dora") and not all(MAGNITUDES in layer.parts for layer in found.values()):
            lacking = next(name for name, layer in found.items() if MAGNITUDES not in layer.parts)
            raise UserError(f"{path} is DoRA by its settings and has no magnitudes of {lacking}: export it again")
        said = {name: _peft(path, layer.said, ranks[name], settings) for name, layer in found.items()}
        for name, scale in stored.items():
            if not math.isclose(scale, said[name], rel_tol=1e-3):
                raise UserError(f"{path} has scale {scale:g} of {name} in a tensor and {said[name]:g} in its settings")
        return said
    if stored:
        return stored
    if ALPHA in header:
        return _kohya(path, ranks, header)
    return dict.fromkeys(found, 1.0)


def _alpha(path: Path, name: str, tensor: Any) -> float:
    if math.prod(tensor.shape) != 1:
        raise UserError(f"{path}: the alpha of {name} has shape {tuple(tensor.shape)} and is no number")
    return _number(path, f"the alpha of {name}", np.asarray(tensor).reshape(()).item())


def _number(path: Path, what: str, value: Any) -> float:
    """A finite number other than zero. UserError for anything else."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number == 0:
        raise UserError(f"{path}: {what} is {str(value)[:40]!r}, so its scale is not known")
    return number


def _of_header(path: Path, text: str) -> Json:
    """peft's settings of the video model in the JSON that diffusers puts in a header."""
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} has {METADATA} in its header that cannot be read ({error}): export it again"
        ) from error
    for component in COMPONENTS:
        mine = {k.removeprefix(component): v for k, v in content.items() if k.startswith(component)}
        if "lora_alpha" in mine or "r" in mine:
            return mine
    raise UserError(f"{path} has {METADATA} in its header without r and lora_alpha of `transformer`: export it again")


def _peft(path: Path, name: str, rank: int, settings: Mapping[str, Any]) -> float:
    check_settings(path, settings)
    stated = _pattern(path, name, settings, "rank_pattern", settings.get("r", rank))
    if stated != rank:
        raise UserError(f"{path}: its settings say rank {str(stated)[:40]} of {name}, whose tensors have rank {rank}")
    alpha = _pattern(path, name, settings, "alpha_pattern", settings.get("lora_alpha", PEFT_ALPHA))
    alpha = _number(path, f"lora_alpha of {name}", alpha)
    rslora = settings.get("use_rslora") or False
    if not isinstance(rslora, bool):
        raise UserError(f"{path}: use_rslora is {str(rslora)[:40]!r}, so the scale is not known")
    return alpha / (math.sqrt(rank) if rslora else rank)


def _pattern(path: Path, name: str, settings: Mapping[str, Any], key: str, otherwise: Any) -> Any:
    """The value of the first pattern that fits a layer's name, by peft's rule."""
    patterns = settings.get(key) or {}
    try:
        return next((v for k, v in patterns.items() if _fits(k, name)), otherwise)
    except (regex.error, AttributeError, RecursionError, OverflowError, TimeoutError) as error:
        raise UserError(f"{path}: {key} of its settings cannot be read ({str(error)[:80]})") from error


def _fits(pattern: str, name: str) -> bool:
    # The pattern comes with a file that somebody downloaded, and some patterns never end: hence a limit in seconds.
    return regex.match(rf"(.*\.)?({pattern})$", name, timeout=2) is not None


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """UserError for settings of peft with which an adapter is more than A and B. path: for messages."""
    if settings.get("peft_type", "LORA") not in ("LORA", None):
        raise UserError(f"{path} is of peft_type {str(settings['peft_type'])[:40]!r}: osjax reads LORA")
    for key, plain in PLAIN.items():
        if key in settings and settings[key] not in plain:
            kind = f"a LoRA with {key} {str(settings[key])[:40]}"
            raise UserError(f"{path} is {kind}, which osjax does not read: merge it into the model with peft")
    init = settings.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(RESIDUAL):
        raise UserError(
            f"{path} was initialised by {init[:40]}, which changes the model beneath: save it with peft's "
            "path_initial_model_for_weight_conversion, or merge it with peft"
        )


def _kohya(path: Path, ranks: Mapping[str, int], header: Mapping[str, str]) -> dict[str, float]:
    """The scales where the header alone states alpha. It is that of layers of the rank stated beside it."""
    alpha = _number(path, ALPHA, header[ALPHA])
    dim = header.get(DIM)
    for name, rank in ranks.items():
        if dim is not None and dim.strip() != str(rank):
            raise UserError(
                f"{path}: {DIM} is {dim[:40]!r}, {name} has rank {rank} and no alpha: its scale is not known"
            )
    return {name: alpha / rank for name, rank in ranks.items()}


def _check_header(path: Path, header: Mapping[str, str], all_stored: bool) -> None:
    """UserError for a text in the header that speaks of scales in words that are not known here.

    all_stored: every layer has an alpha; what a trainer notes (`ss_...`) is then only a record.
    """
    for key, value in header.items():
        if key in (METADATA, ALPHA, DIM) or not (SCALE_WORDS.search(key) or key == "ss_network_args"):
            continue
        if key.startswith("ss_") and (all_stored or not SCALE_WORDS.search(value + key)):
            continue
        raise UserError(
            f"{path} has {key[:60]} = {value[:40]!r} in its header, which osjax does not understand as a scale"
        )
