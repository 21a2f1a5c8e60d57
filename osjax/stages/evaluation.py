"""What a stage of the video model is measured by while it trains: the flow loss on held-out clips, samples of prompts.

What needs the encoders and not the model, held-out latents and the features of the prompts, is made ahead: then their
weights need not lie beside the model's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from osjax import models
from osjax.parallel import host, sharding
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.place import Place
from osjax.sampling.encoders import PromptEncoder
from osjax.sampling.pipeline import Pipeline
from osjax.sampling.settings import SampleSettings
from osjax.sampling.write import write_samples
from osjax.stages import data
from osjax.stages.encoders import Encoders
from osjax.training import diffusion, state
from osjax.training.dashboards import Dashboard, Sample
from osjax.training.draw import Draw
from osjax.types import Tree


class Evaluation:
    """Losses on the same held-out batches, noise and times every time, and samples of the prompts.

    recipe: of the stage. place: where the run keeps things. own: the run's data. read: gives the stage's encoders.
    draw: gives, of them and two probabilities of dropping texts, what makes the model's inputs. dashboards: are shown
    the samples.
    """

    def __init__(
        self,
        recipe: DiffusionRecipe,
        place: Place,
        own: data.OwnData,
        read: Callable[[], Encoders],
        draw: Callable[[Encoders, float, float], Draw],
        dashboards: Sequence[Dashboard] = (),
    ):
        self._dashboards = dashboards
        self.recipe, self.place, self._own, self._read, self._draw = recipe, place, own, read, draw
        self._held: list[Any] = []
        self._text: Remembered | None = None
        self._losses = jax.jit(self._of_batch)

    def prepare(self) -> None:
        """Encode the held-out clips and the prompts, with whatever weights that takes."""
        keys, encoders = self.recipe.keys, self._read()
        if keys.evaluate.every and not self._held:
            source = data.held_out_source(keys.data, self._own)
            asked = source, self.recipe.table, keys.data, keys.seed
            data.warn_left_out(*asked, "held-out")
            encoded = data.Mapped(data.video_batches(*asked), encoders.of_videos)
            self._held = [host.to_global(next(encoded), self.recipe.mesh) for _ in range(keys.evaluate.batches)]
            _ = encoders.null
        if keys.evaluate.prompts and self._text is None:
            self._text, settings = Remembered(encoders.text), self._settings
            for text in (*map(settings.says, keys.evaluate.prompts), settings.negative):
                self._text.encode_batch([text])

    def __call__(self, now: state.TrainState) -> dict[str, float]:
        """The losses, where it is their turn, by name; the samples are written. now: the state after a step."""
        asked, step = self.recipe.keys.evaluate, int(now.step)
        self.prepare()
        measured = self._measure(now) if asked.every and step % asked.every == 0 else {}
        if asked.of_samples and step % asked.of_samples == 0:
            self._sample(now.best(), step)
        return measured

    def _of_batch(self, params: Tree, batch: Tree, key: jax.Array) -> jax.Array:
        draw = self._draw(self._read(), 0.0, 0.0)
        return diffusion.make_evaluation(models.build(self.recipe.model), draw)(params, batch, key)

    def _measure(self, now: state.TrainState) -> dict[str, float]:
        key = sharding.random_key(self.recipe.keys.seed, self.recipe.mesh)
        with sharding.under(self.recipe.mesh):
            by_time = np.mean([jax.device_get(self._losses(now.best(), batch, key)) for batch in self._held], axis=0)
        named = {f"eval_loss_t{t}": float(value) for t, value in zip(diffusion.TIMES, by_time, strict=True)}
        return {"eval_loss": float(by_time.mean()), **named}

    @property
    def _settings(self) -> SampleSettings:
        return SampleSettings(**sample_settings(self.recipe))

    def _sample(self, params: Tree, step: int) -> None:
        """Videos of the config's prompts, to look at, named by the step."""
        recipe, settings, encoders = self.recipe, self._settings, self._read()
        prompts = list(recipe.keys.evaluate.prompts)
        mesh = recipe.mesh if recipe.mesh.size > 1 else None
        # Adapters stay beside the model: merged into it they would be a second model on the device.
        assert self._text is not None  # `prepare` has seen to it
        pipe = Pipeline(models.build(recipe.model), params, encoders.autoencoder, self._text, mesh=mesh)
        made = pipe(prompts, settings=settings)
        if recipe.keys.data.cached:  # training has no use for it
            encoders.release_autoencoder()
        if jax.process_index() == 0:
            folder = self.place.workdir / "samples" / recipe.name / f"step-{step:07d}"
            paths = write_samples(folder, made.videos_BTHWC, prompts, made.settings, settings.fps)
            shown = zip(paths, prompts, made.videos_BTHWC, strict=True)
            samples = [Sample(path, prompt, video, settings.fps) for path, prompt, video in shown]
            for dashboard in self._dashboards:
                dashboard.show(recipe.name, step, samples)


class Remembered:
    """A text encoder that keeps the features of texts on the host. encoder: asked for those that it did not see yet."""

    def __init__(self, encoder: PromptEncoder):
        self._encoder, self._features = encoder, {}

    @property
    def max_length(self) -> int:
        """Text states of a prompt."""
        return self._encoder.max_length

    def encode_batch(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """States (B, M, C) and pooled vectors (B, C) of B prompts, each encoded alone."""
        for prompt in prompts:
            if prompt not in self._features:
                self._features[prompt] = tuple(map(np.asarray, self._encoder.encode_batch([prompt])))
        states, pooled = zip(*(self._features[prompt] for prompt in prompts), strict=True)
        return np.concatenate(states), np.concatenate(pooled)


def sample_settings(recipe: DiffusionRecipe) -> dict[str, Any]:
    """What to sample with from what a stage trained: its own keys, and captions as it was trained with them."""
    data = recipe.keys.data
    stated = {"caption_form": "training", "state_fps": data.state_fps} if data.state_fps or data.state_motion else {}
    return {**stated, **recipe.keys.sample}
