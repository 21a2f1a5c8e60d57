"""A stage of the video model: its encoders, its batches of latents, and the train step of its condition modes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from osjax import models
from osjax.parallel import host, sharding
from osjax.parts import autoencoder
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.place import Place
from osjax.parts.text import of_this_host
from osjax.sampling.pipeline import Pipeline
from osjax.sampling.settings import SampleSettings
from osjax.sampling.write import write_samples
from osjax.stages import data, features, stage
from osjax.stages.encoders import Encoders
from osjax.stages.throughput import throughput
from osjax.training import diffusion, state
from osjax.training.draw import Draw
from osjax.types import Tree


class DiffusionStage:
    """A checked stage of the video model that trains, or encodes its clips ahead of training.

    recipe: what it does. place: where the run keeps things.
    """

    def __init__(self, recipe: DiffusionRecipe, place: Place):
        self.recipe, self.place = recipe, place
        self.module = recipe.autoencoder.module
        self.modes = dict(recipe.keys.modes)

    def check_features(self, own: data.OwnData) -> None:
        """UserError where the folder of features holds none of the stage's clips. own: as `train` takes it."""
        if self.recipe.autoencoder.weights:  # features of an autoencoder of the run come after that
            features.find(self._cache, self._clips(data.training_source(self.recipe.keys.data, own)))

    def train(self, own: data.OwnData, options: stage.Options) -> None:
        """Bring the stage to its last step. own: the run's data, for a stage that names none."""
        recipe, keys = self.recipe, self.recipe.keys
        encoders: list[Encoders] = []  # read once, and not at all for a finished stage

        def read() -> Encoders:
            if not encoders:
                encoders.append(self._encoders())
            return encoders[0]

        trained = recipe.optimizer.freeze.share(models.abstract_params(recipe.model))
        dropout = keys.text_dropout.t5, keys.text_dropout.clip
        work = stage.Work(
            lambda module, tx, opt: diffusion.make_step(
                module, tx, opt, self._draw(read(), *dropout), not keys.loss_on_given, keys.shift
            ),
            lambda: self._batches(data.training_source(keys.data, own), read()),
            evaluate=self._evaluation(own, read) if keys.evaluate.steps else None,
            throughput=throughput(recipe.model, 0.0 if recipe.adapters else trained, recipe.mesh),
        )
        try:
            stage.train(recipe, self.place, work, options)
        finally:
            for made in encoders:
                made.cut_captions.tell()

    def encode(self, own: data.OwnData) -> features.Features:
        """The features of the stage's clips on disk; made where they are not there yet. own: as `train` takes it."""
        keys = self.recipe.keys.data
        source = data.training_source(keys, own)
        encoders = self._encoders()
        readers = data.readers(keys, source)
        made = features.make(self._cache, self._clips(source), encoders, self.recipe.mesh, readers)
        encoders.cut_captions.tell()
        return made

    def _encoders(self) -> Encoders:
        recipe = self.recipe
        read = partial(autoencoder.read, recipe.autoencoder, self.place, recipe.mesh)
        words = recipe.text.encoder(mesh=of_this_host())
        at_once = recipe.keys.autoencoder.at_once
        return Encoders(self.module, read, words, recipe.text.states_dtype, recipe.mesh, self.modes, at_once)

    @property
    def _cache(self) -> Path:
        return Path(self.recipe.keys.data.features or self.place.workdir / "latents")

    def _clips(self, source: data.Source) -> features.Clips:
        recipe = self.recipe
        made_by = {"autoencoder": autoencoder.fingerprint(recipe.autoencoder, self.place)}
        if recipe.keys.data.cached_text:
            made_by["text"] = recipe.text.fingerprint()
        plan = data.plan(source, recipe.table, recipe.keys.seed, settled=True, fill=recipe.keys.data.fill)
        shapes, keys = self._encoders().cached_shapes, recipe.keys.data
        said = keys.state_fps, keys.state_motion
        return features.Clips(source, plan, recipe.table, made_by, shapes, *said, keys.exact_resize)

    def _batches(self, source: data.Source, encoders: Encoders) -> data.Batches:
        keys = self.recipe.keys.data
        if not keys.cached:
            rows = data.video_batches(source, self.recipe.table, keys, self.recipe.keys.seed)
            return data.Mapped(rows, encoders.of_videos)
        clips, readers = self._clips(source), data.readers(keys, source)
        if keys.features:  # made by `osjax encode`: too much work to begin it here unasked
            made = features.find(self._cache, clips)
        else:
            made = features.make(self._cache, clips, encoders, self.recipe.mesh, readers)
        if made.null is not None:
            encoders.null = made.null
        return data.Mapped(made.batches(readers), encoders.of_cached)

    def _draw(self, encoders: Encoders, drop_t5: float, drop_clip: float) -> Draw:
        inputs, stride, guidance = self.recipe.model.inputs, self.module.stride, self.recipe.keys.guidance
        return Draw(inputs, self.modes, stride, encoders.null, drop_t5, drop_clip, guidance)

    def _evaluation(self, own: data.OwnData, read: Callable[[], Encoders]):
        """The flow loss on the same held-out batches, noise and times every time, and samples of the prompts."""
        asked, losses = self.recipe.keys.evaluate, self._losses(own, read)

        def evaluate(now: state.TrainState) -> dict[str, float]:
            step = int(now.step)
            measured = losses(now) if asked.every and step % asked.every == 0 else {}
            if asked.of_samples and step % asked.of_samples == 0:
                self._sample(now.best(), now, read())
            return measured

        return evaluate

    def _losses(self, own: data.OwnData, read: Callable[[], Encoders]):
        recipe, keys = self.recipe, self.recipe.keys
        held: list[Any] = []

        @jax.jit
        def losses(params: Tree, batch: Tree, key: jax.Array) -> jax.Array:
            draw = self._draw(read(), 0.0, 0.0)
            return diffusion.make_evaluation(models.build(recipe.model), draw)(params, batch, key)

        def measure(now: state.TrainState) -> dict[str, float]:
            if not held:
                source = data.held_out_source(keys.data, own)
                rows = data.video_batches(source, recipe.table, keys.data, keys.seed)
                encoded = data.Mapped(rows, read().of_videos)
                held.extend(host.to_global(next(encoded), recipe.mesh) for _ in range(keys.evaluate.batches))
            key = sharding.random_key(keys.seed, recipe.mesh)
            with sharding.under(recipe.mesh):
                by_time = np.mean([jax.device_get(losses(now.best(), batch, key)) for batch in held], axis=0)
            named = {f"eval_loss_t{t}": float(value) for t, value in zip(diffusion.TIMES, by_time, strict=True)}
            return {"eval_loss": float(by_time.mean()), **named}

        return measure

    def _sample(self, params: Tree, now: state.TrainState, encoders: Encoders) -> None:
        """Videos of the config's prompts, to look at, named by the step."""
        recipe = self.recipe
        prompts = list(recipe.keys.evaluate.prompts)
        if not prompts:
            return
        settings = SampleSettings(**sample_settings(recipe))
        mesh = recipe.mesh if recipe.mesh.size > 1 else None
        # Adapters stay beside the model: merged into it they would be a second model on the device.
        pipe = Pipeline(models.build(recipe.model), params, encoders.autoencoder, encoders.text, mesh=mesh)
        made = pipe(prompts, settings=settings)
        if jax.process_index() == 0:
            folder = self.place.workdir / "samples" / recipe.name / f"step-{int(now.step):07d}"
            write_samples(folder, made.videos_BTHWC, prompts, made.settings, settings.fps)


def sample_settings(recipe: DiffusionRecipe) -> dict[str, Any]:
    """What to sample with from what a stage trained: its own keys, and captions as it was trained with them."""
    data = recipe.keys.data
    stated = {"caption_form": "training", "state_fps": data.state_fps} if data.state_fps or data.state_motion else {}
    return {**stated, **recipe.keys.sample}
