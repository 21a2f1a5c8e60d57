"""A stage of the video model: its encoders, its batches of latents, and the train step of its condition modes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import flax.linen as nn
import numpy as np
import optax

from osjax import models
from osjax.parallel import exchange
from osjax.parts import autoencoder
from osjax.parts.diffusion import DiffusionRecipe
from osjax.parts.place import Place
from osjax.parts.text import of_this_host
from osjax.stages import data, features, stage
from osjax.stages.encoders import Encoders
from osjax.stages.evaluation import Evaluation
from osjax.stages.throughput import throughput
from osjax.training import diffusion, distil
from osjax.training.dashboards import Dashboard
from osjax.training.draw import Draw
from osjax.training.optimizer import OptimizerConfig
from osjax.training.state import Step


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
        encoders: list[Encoders] = []
        scale = autoencoder.scale_of(self.recipe.autoencoder, self.place)
        told = [np.asarray(values).tolist() for values in (scale.scale, scale.shift)]
        exchange.same(told, "the scale of latents (latent_scale.json)", "give all hosts the same file")
        try:
            stage.train(self.recipe, self.place, self._work(own, encoders, options.dashboards), options)
        finally:
            for made in encoders:
                made.cut_captions.tell()

    def replay(self, own: data.OwnData) -> str | None:
        """What `stage.replay` says of the stage. own: as `train` takes it."""
        return stage.replay(self.recipe, self.place, self._work(own, []))

    def _work(self, own: data.OwnData, encoders: list[Encoders], dashboards: Sequence[Dashboard] = ()) -> stage.Work:
        """encoders: gets them when they are read, once, and not at all for a finished stage."""
        recipe, keys = self.recipe, self.recipe.keys

        def read() -> Encoders:
            if not encoders:
                encoders.append(self._encoders())
            return encoders[0]

        trained = recipe.optimizer.freeze.share(models.abstract_params(recipe.model))
        evaluation = None
        if keys.evaluate.steps:
            evaluation = Evaluation(recipe, self.place, own, read, self._draw, dashboards)

        def batches() -> data.Batches:
            made = self._batches(data.training_source(keys.data, own), read())
            if evaluation is not None:
                evaluation.prepare()
            if keys.data.cached:  # before the model takes its place on the devices
                read().release_autoencoder()
            if keys.data.cached_text:
                read().release_text()
            return made

        return stage.Work(
            lambda module, tx, opt: self._step(module, tx, opt, read()),
            batches,
            evaluate=evaluation,
            throughput=throughput(recipe.model, 0.0 if recipe.adapters else trained, recipe.mesh),
            data=lambda: data.identity(data.whole_source(keys.data, own)),
        )

    def _step(
        self, module: nn.Module, tx: optax.GradientTransformation, opt: OptimizerConfig, encoders: Encoders
    ) -> Step:
        keys, taught = self.recipe.keys, self.recipe.taught
        draw = self._draw(encoders, keys.text_dropout.t5, keys.text_dropout.clip)
        how = not keys.loss_on_given, keys.shift
        if taught is None:
            return diffusion.make_step(module, tx, opt, draw, *how)
        conditioned = any(weight and name != "t2v" for name, weight in self.modes.items())
        teacher = models.build(taught.teacher)
        lesson = distil.Lesson(teacher, taught.what, encoders.null, conditioned, taught.scales)
        return distil.make_step(tx, opt, distil.make_loss(module, lesson, draw, *how))

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
