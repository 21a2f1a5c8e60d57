"""The card of a model that a run trained, README.md of its repository: what it is, what of, and how to sample from it.

Nothing is claimed that the run does not know: without a licence given there is no field of one.
"""

import html
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from osjax.errors import UserError
from osjax.sampling.trained import Trained
from osjax.types import Json

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
NAMES = {
    "base": "model beneath, or begun from",
    "base_checksum": "its checksum",
    "adapters_before": "adapters begun from",
    "autoencoder": "autoencoder",
    "t5": "T5",
    "clip": "CLIP",
    "data_set": "identity of the data set",
    "clips": "clips",
}


def check_licence(licence: str | None) -> None:
    """UserError, status 2, for a `licence` that is no identifier as Hugging Face has them. None is none."""
    if licence is not None and not LICENCE.fullmatch(licence):
        raise UserError(f"--license={licence!r} is no identifier of a licence, such as apache-2.0", status=2)


@dataclass(frozen=True)
class Card:
    """What a card tells.

    repository: OWNER/NAME. kind: what the weights are, in words. adapters: whether they are adapters. lineage: of
    `lineage.of_stage`. base: repository of the model beneath, if it came from one. trained: what on. prompts: of the
    run's evaluation. samples: (file, prompt) of videos in the repository. settings: of sampling, as the run left them.
    config: the stage's keys, without paths. mode: the condition mode to sample in. sampler: the config to sample with.
    licence: its identifier there, if one was given. steps: trained.
    """

    repository: str
    kind: str
    adapters: bool
    lineage: Json = field(default_factory=dict)
    base: str | None = None
    trained: Trained = Trained()
    prompts: Sequence[str] = ()
    samples: Sequence[tuple[str, str]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    mode: str = "t2v"
    sampler: str | None = None
    licence: str | None = None
    steps: int | None = None

    def text(self) -> str:
        """The whole card, Markdown behind a head of YAML."""
        parts = [self._head(), f"# {self.repository.split('/')[1]}\n\n{self.kind}", self._facts(), self._sampling()]
        if self.samples:
            parts.append("## Samples\n\n" + "\n".join(_sample(file, prompt) for file, prompt in self.samples))
        if self.config:
            shown = json.dumps(self.config, indent=1, ensure_ascii=False).replace("```", "'''")
            parts.append(f"## Config of the training\n\n```json\n{shown}\n```")
        return "\n\n".join(parts) + "\n"

    def _head(self) -> str:
        head: Json = {"library_name": "osjax", "tags": ["osjax", "open-sora", *(["lora"] if self.adapters else [])]}
        head["pipeline_tag"] = "text-to-video" if self.mode == "t2v" else "image-to-video"
        if self.licence:
            head["license"] = self.licence
        if self.base:
            head |= {"base_model": self.base, "base_model_relation": "adapter" if self.adapters else "finetune"}
        if self.trained.trigger:
            head["instance_prompt"] = self.trained.trigger
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]  # JSON is YAML
        return "\n".join(["---", *lines, "---"])

    def _facts(self) -> str:
        rows = [(NAMES[name], f"`{_code(value)}`") for name, value in self.lineage.items()]
        if self.steps is not None:
            rows.append(("steps", str(self.steps)))
        if self.trained.shapes:
            rows.append(("sizes, width x height x frames", _shapes(self.trained.shapes)))
        if self.trained.trigger:
            rows.append(("word that stands for what is new", f"`{_code(self.trained.trigger)}`"))
        rows.append(("licence", f"`{self.licence}`" if self.licence else "not stated by who uploaded it"))
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])

    def _sampling(self) -> str:
        lines = ["## Sample", "", "```bash", shlex.join(self.command()), "```"]
        if self.sampler is None:
            lines += ["", "`CONFIG.py` is a sampling config of osjax that names the other models of the table."]
        if self.prompts:
            lines += ["", "Prompts that it was evaluated on:", "", *(f"- {_words(prompt)}" for prompt in self.prompts)]
        return "\n".join(lines)

    def command(self) -> list[str]:
        """The command that samples from the repository, as its arguments."""
        prompt = next(iter(self.prompts), self.trained.trigger or "what to show")
        keys = {f"model.{'adapter' if self.adapters else 'weights'}": f"hf://{self.repository}"}
        keys |= {f"sample.{name}": value for name, value in self.settings.items()}
        flags = [f"--config.{name}={value}" for name, value in keys.items()]
        given = [] if self.mode == "t2v" else [f"--mode={self.mode}", "--ref=first.png"]
        return ["osjax", "sample", f"--config={self.sampler or 'CONFIG.py'}", *flags, *given, "--prompt", prompt]


def _sample(file: str, prompt: str) -> str:
    return f'<video src="{html.escape(file)}" controls loop muted width="256"></video>\n\n{_words(prompt)}\n'


def _words(text: str) -> str:
    """A text on one line, of which Markdown and HTML make nothing."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _code(text: object) -> str:
    return " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")


def _shapes(shapes: Sequence[tuple[int, int, int]], most: int = 6) -> str:
    shown = ", ".join(f"{W}x{H}x{T}" for T, H, W in shapes[:most])
    return shown + (f" and {len(shapes) - most} more" if len(shapes) > most else "")
