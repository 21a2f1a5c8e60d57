"""A stage of an autoencoder, reconstruction or adversarial: its step, its evaluation, its latents' statistics."""

import logging
from typing import Any

import jax
import numpy as np

from osjax.data import loader, transforms
from osjax.errors import UserError
from osjax.parallel import exchange, host, rules
from osjax.parallel import mesh as device_mesh
from osjax.parts import autoencoder, latent_scale
from osjax.parts.autoencoder_stage import AutoencoderRecipe
from osjax.parts.place import Place
from osjax.stages import data, stage
from osjax.stages.held_out import HeldOut, report
from osjax.training import autoencoder as ae_step
from osjax.training import gan
from osjax.training.autoencoder import AutoencoderState
from osjax.types import Tree, VideoBatch

log = logging.getLogger(__name__)

AT_ONCE = 16  # clips through the encoder for its statistics


class AutoencoderStage:
    """A checked stage of an autoencoder that trains. recipe: what it does. place: where the run keeps things."""

    def __init__(self, recipe: AutoencoderRecipe, place: Place):
        self.recipe, self.place = recipe, place

    def train(self, own: data.OwnData, options: stage.Options) -> None:
        """Bring the stage to its last step. own: the run's data, for a stage that names none."""
        recipe, keys = self.recipe, self.recipe.keys
        held_out = self._held_out(own)
        final = stage.train(recipe, self.place, self._work(own, held_out), options)
        if keys.evaluate.every:
            report(recipe.name, self.place.workdir / recipe.name, final and held_out.of_state(final))
        if recipe.measured:
            self._measure(own)

    def replay(self, own: data.OwnData) -> str | None:
        """What `stage.replay` says of the stage. own: as `train` takes it."""
        return stage.replay(self.recipe, self.place, self._work(own, self._held_out(own)))

    def _work(self, own: data.OwnData, held_out: HeldOut) -> stage.Work:
        recipe, keys = self.recipe, self.recipe.keys

        def batches() -> data.Batches:
            source = data.training_source(keys.data, own)
            rows = data.video_batches(source, recipe.table, keys.data, keys.seed)
            mixed = data.SomeImages(rows, keys.data.image_ratio, keys.seed)
            return data.Mapped(mixed, lambda batch: VideoBatch(host.pixels_to_global(batch["video"], recipe.mesh)))

        return stage.Work(
            self._make_step,
            batches,
            evaluate=held_out.of_state if keys.evaluate.every else None,
            create=self._create,
            fill=self._fill,
            axis_rules=rules.AUTOENCODER,
            data=lambda: data.identity(data.whole_source(keys.data, own)),
        )

    def _create(self, init_params: Tree, tx: Any, with_ema: bool, freeze: Any) -> AutoencoderState:
        recipe, seed = self.recipe, self.recipe.keys.seed
        perceptual = recipe.distance and recipe.distance.blank()
        if recipe.teacher:
            both = recipe.teacher.projection(seed), recipe.teacher.blank()
            return ae_step.create(init_params, tx, with_ema, freeze, perceptual, *both)
        if recipe.phase is None:
            return ae_step.create(init_params, tx, with_ema, freeze, perceptual)
        critic = recipe.phase.init(seed)
        return gan.create(init_params(), critic, perceptual, tx, recipe.phase.tx, with_ema, freeze)

    def _fill(self, now: AutoencoderState, shardings: Tree) -> AutoencoderState:
        if self.recipe.distance:
            now = now.replace(perceptual=self.recipe.distance.read(shardings.perceptual))
        if self.recipe.teacher:
            read = self.recipe.teacher.read(shardings.alignment.teacher)
            now = now.replace(alignment=now.alignment.replace(teacher=read))
        return now

    def _make_step(self, _: Any, tx: Any, adam: Any) -> Any:
        recipe, losses = self.recipe, self.recipe.keys.losses
        distance = recipe.distance and recipe.distance.module
        if recipe.phase is None:
            teaching = recipe.teacher and recipe.teacher.teaching
            return ae_step.make_step(recipe.module, tx, adam, losses, lpips=distance, teaching=teaching)
        modules, phase = gan.Models(recipe.module, recipe.phase.module, distance), recipe.phase
        return gan.make_step(modules, tx, phase.tx, phase.losses, adam, phase.adam, losses.crop)

    def _held_out(self, own: data.OwnData) -> HeldOut:
        recipe, keys = self.recipe, self.recipe.keys

        def batches() -> list[Any]:
            source = data.held_out_source(keys.data, own)
            rows = data.video_batches(source, recipe.table, keys.data, keys.seed)
            return [next(rows)["video"] for _ in range(keys.evaluate.batches)]

        return HeldOut(recipe.module, recipe.distance, recipe.mesh, batches)

    def _measure(self, own: data.OwnData) -> None:
        """Scale and shift of the latents, from the first clips of the training data; kept beside the checkpoints."""
        recipe, keys = self.recipe, self.recipe.keys
        folder = self.place.workdir / recipe.name
        measured = (folder / latent_scale.FILE).exists()
        try:
            latent_scale.read(folder)
        except UserError as error:
            measured = False
            log.warning("%s; it is measured anew", str(error).split(": delete")[0])
            (folder / latent_scale.FILE).unlink(missing_ok=True)
        if all(exchange.of_all(measured)):
            return
        source = data.training_source(keys.data, own)
        window = loader.Window(*recipe.measured, fps_max=keys.data.fps_max, exact=keys.data.exact_resize)
        reader = loader.ClipReader(source, window, data.readers(keys.data, source).of(source))
        mesh = device_mesh.make(devices=jax.local_devices()[:1])
        part = autoencoder.AutoencoderPart(recipe.model, np.dtype("float32"), stage=recipe.name)
        bare = autoencoder.read(part, self.place, mesh)
        clips, latents = min(keys.latent_statistics.clips, len(source)), []
        for start in range(0, clips, AT_ONCE):
            videos = [reader(i)["video"] for i in range(start, min(start + AT_ONCE, clips))]
            latents.append(np.asarray(bare.encode(transforms.unit(np.stack(videos)))))
        if jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            latent_scale.write(folder, latent_scale.measured(np.concatenate(latents)))
        latent_scale.share(folder)
