"""The prefix that wrappers and trainers put before all names of a state dict, such as `module.` or `_orig_mod.`."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

# Segments that wrappers put anywhere in a name: torch.compile, FSDP, activation checkpointing.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Roots of the models in files that hold several, as ComfyUI and Stable Diffusion's trainers write.
BUNDLED = (
    "model.diffusion_model.",
    "first_stage_model.",
    "vae.",
    "text_encoders.",
    "cond_stage_model.",
    "conditioner.",
)


def of(names: Collection[str], expected: Collection[str]) -> str:
    """What stands before the expected names in all of `names`, up to a dot; empty where some are there as they are.

    In a file of several models (`BUNDLED`), the root under which the expected names lie.
    """
    if not names or any(name in expected for name in names):
        return ""
    for prefix in _leading(names):
        if _fits(prefix, names, expected):
            return prefix
    roots = [root for root in BUNDLED if any(name.startswith(root) for name in names)]
    if len(roots) > 1 and all(name.startswith(BUNDLED) for name in names):
        return next((root for root in roots if _fits(root, names, expected)), "")
    return ""


def _fits(prefix: str, names: Iterable[str], expected: Collection[str]) -> bool:
    return any(name.startswith(prefix) and name[len(prefix) :] in expected for name in names)


def _leading(names: Collection[str]) -> list[str]:
    """The beginnings up to a dot that all names share, shortest first. Other names lie between the first and last."""
    out, prefix = [], ""
    first, last = min(names).split("."), max(names).split(".")
    for a, b in zip(first[:-1], last[:-1], strict=False):
        if a != b:
            break
        prefix += a + "."
        out.append(prefix)
    return out


def strip(tensors: Mapping[str, Any], expected: Collection[str]) -> tuple[dict[str, Any], str]:
    """(The tensors by their names without prefix and wrappers, what was taken off, in words; empty for nothing).

    expected: names of the model. Tensors of other models in a bundle are left out.
    """
    bare = {".".join(p for p in name.split(".") if p not in WRAPPERS): tensor for name, tensor in tensors.items()}
    used = sorted({part for name in tensors for part in name.split(".")} & set(WRAPPERS))
    if len(bare) < len(tensors):  # two tensors would share a name
        bare, used = dict(tensors), []
    prefix = of(bare.keys(), expected)
    bare = {name[len(prefix) :]: tensor for name, tensor in bare.items() if name.startswith(prefix)}
    if not any(name in expected for name in bare):
        return dict(tensors), ""
    return bare, " and ".join([repr(prefix)] * bool(prefix) + [f"{name!r} within them" for name in used])
