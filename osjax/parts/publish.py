"""What a run trained, told for others: a repository's card, the same facts in JSON, and samples of the run."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from osjax import atomic, json_file, models
from osjax.errors import UserError
from osjax.models.lora import LoRAConfig
from osjax.parts import lineage
from osjax.parts.hub_upload import MARK
from osjax.parts.model_card import Card
from osjax.sampling import workdir
from osjax.sampling.trained import Trained
from osjax.types import Json, ModelConfig
from osjax.weights import orbax_stream

SAMPLES = 8  # of the newest evaluation
# in_channels of the released video models -> the config that samples from them, by resolution.
SAMPLERS = {
    64: {"256px": "configs/sample/t2v_256.py", "768px": "configs/sample/t2v_768.py"},
    128: {"768px": "configs/sample/high_compression.py"},
}


@dataclass(frozen=True)
class About:
    """What is published.

    source: a checkpoint's parameters, or files. model: config of the model that they are of. run: the workdir that they
    are of, or None. adapters: what they are, of adapters. licence: identifier, or None to state none.
    """

    source: Path
    model: ModelConfig
    run: Path | None = None
    adapters: LoRAConfig | None = None
    licence: str | None = None


def write(folder: Path, repository: str, about: About) -> Card:
    """Write README.md, osjax.json and the run's samples beside weights in a folder; the card.

    repository: OWNER/NAME. about: what the weights are. UserError for a run that cannot be read.
    """
    source, run = about.source, about.run
    checkpoint = orbax_stream.find(source) if source.is_dir() else None
    saved = orbax_stream.saved_config(checkpoint) if checkpoint else {}
    saved = saved if "optimizer" in saved else {}  # of a conversion
    left = workdir.read(run) if run else None
    known = left.trained if left else Trained()
    start = (saved.get("start") or {}).get("weights")
    modes = [mode for mode, weight in (saved.get("modes") or {"t2v": 1.0}).items() if weight]
    settings = dict(left.settings) if left else {}
    card = Card(
        repository,
        _kind(about.model, about.adapters),
        about.adapters is not None,
        lineage.of_stage(saved, known.data, known.clips),
        start and lineage.published_at(start),
        known,
        [str(text) for text in (saved.get("evaluate") or {}).get("prompts") or ()],
        _samples(run, folder / "samples") if run else (),
        settings,
        lineage.without_paths(saved),
        "t2v" if "t2v" in modes or not modes else modes[0],
        _sampler(about.model, settings),
        about.licence,
        int(checkpoint.parent.name) if checkpoint and checkpoint.parent.name.isdigit() else None,
    )
    facts: Json = {"trained": known.to_json(), "lineage": card.lineage, "config": card.config}
    atomic.write_text(folder / MARK, json.dumps(facts, indent=1) + "\n")
    atomic.write_bytes(folder / "README.md", card.text().encode("utf-8", "backslashreplace"))
    return card


def _kind(model_cfg: ModelConfig, adapters: LoRAConfig | None) -> str:
    family = models.family_of(model_cfg)
    if adapters is not None:
        return f"Adapters (LoRA) of rank {adapters.rank}, alpha {adapters.alpha:g}, of a video model ({family})."
    count = sum(leaf.size for leaf in jax.tree.leaves(models.abstract_params(model_cfg)))
    what = "A video model" if family in models.VIDEO_MODELS else "A model"
    return f"{what} ({family}) of {count:,} parameters."


def _sampler(model_cfg: ModelConfig, settings: Mapping[str, Any]) -> str | None:
    """The shipped config that samples from a released model, None of a model of another size."""
    if models.family_of(model_cfg) != "mmdit":
        return None
    released = models.config("mmdit")
    sizes = ("hidden_size", "num_heads", "depth", "depth_single_blocks", "cond_embed", "guidance_embed")
    if any(getattr(released, name) != getattr(model_cfg, name) for name in sizes):
        return None
    by_resolution = SAMPLERS.get(model_cfg.in_channels, {})
    return by_resolution.get(str(settings.get("resolution")), next(iter(by_resolution.values()), None))


def _samples(run: Path, out: Path) -> list[tuple[str, str]]:
    """Copy the newest samples of a run's evaluations; their files, relative to the repository, and their prompts."""
    steps = sorted((run / "samples").glob("*/step-*"), key=lambda path: (path.stat().st_mtime, path.name))
    videos = sorted(path for path in steps[-1].iterdir() if path.suffix in (".mp4", ".png"))[:SAMPLES] if steps else []
    told = []
    for path in videos:
        try:
            prompt = str(json_file.read(path.with_suffix(".json"), "-").get("prompt", ""))
        except UserError:
            prompt = ""
        out.mkdir(exist_ok=True)
        shutil.copyfile(path, out / path.name)
        told.append((f"{out.name}/{path.name}", prompt))
    return told
