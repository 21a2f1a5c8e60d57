"""Whole calls, from noise, text and references to the video, against the original."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from osjax import models, weights
from osjax.sampling.pipeline import Autoencoder, Pipeline, SampleSettings
from tests import golden

FAMILIES = {"mmdit": "mmdit", "dcae": "dcae", "hunyuan": "hunyuan", "ae2d": "flux_ae"}
RUNS = {
    "high_compression_i2v_head": "dcae",
    "t2v": "hunyuan",
    "i2v_loop": "hunyuan",
    "v2v_head": "hunyuan",
    "image_distilled": "flux_ae",
}


def load(name):
    manifest = golden.read_json(f"manifest_{name}")
    family = next(f for start, f in FAMILIES.items() if name.startswith(start))
    fields, options = dict(manifest["config"]), {}
    if family == "mmdit":
        options["layout"] = weights.Layout(fields.pop("fused_qkv"), not fields.pop("use_liger_rope"))
    known = {field.name for field in dataclasses.fields(models.config_class(family))}
    cfg = models.config(family, **{name: value for name, value in fields.items() if name in known})
    tensors = {n: golden.generate(n, tuple(t["shape"]), manifest["gain"]) for n, t in manifest["state_dict"].items()}
    return models.build(cfg), weights.from_torch(cfg, tensors, **options)


@dataclass
class Recorded:
    """Text states as the original's encoders gave them, prompt `n` under the text "n"."""

    arrays: dict

    def encode_batch(self, texts):
        return tuple(np.stack([self._one(kind, text) for text in texts]) for kind in ("txt", "vec"))

    def _one(self, kind, text):
        return self.arrays[f"in.{kind}_prompts"][int(text)] if text else self.arrays[f"in.{kind}_negative"]


def generate(name, **changes):
    arrays, meta = golden.read(f"api_{name}")
    config = meta["config"]
    options = config["options"]
    module, params = load(config["model"])
    pipe = Pipeline(module, params, Autoencoder(*load(config["autoencoder"])), Recorded(arrays))
    noise = np.moveaxis(arrays["in.noise"], 1, -1)
    settings = SampleSettings(
        mode=config["cond_type"],
        height=options["height"],
        width=options["width"],
        frames=options["num_frames"],
        steps=options["num_steps"],
        guidance=options["guidance"],
        guidance_img=options.get("guidance_img", 1.0),
        text_oscillation=options.get("text_osci", False),
        image_oscillation=options.get("image_osci", False),
        image_ramp=options.get("scale_temporal_osci", False),
        put_back=True,
    )
    files = config["reference_string"].split(";") if config["reference_string"] else []
    refs = [tuple(np.moveaxis(arrays[f"in.media.{file}"], 0, -1) for file in files)] if files else None
    prompts = [str(n) for n in range(len(noise))]
    settings = settings.changed(**changes)
    jobs = zip(pipe.jobs(settings, prompts, refs), noise, strict=True)
    made = pipe.make([dataclasses.replace(job, noise_THWC=one) for job, one in jobs], settings)
    decoded = np.concatenate([np.asarray(pipe._autoencoder.decode(x[None])) for x in made.latents_BTHWC])
    return arrays, meta, made, decoded[:, : options["num_frames"]]


@pytest.mark.parametrize("name", [name for name, family in RUNS.items() if family in models._FAMILIES])
def test_a_whole_call_matches_the_original(name):
    arrays, meta, made, video = generate(name)
    tolerance = meta["tolerance_relative"]
    assert golden.relative_error(np.moveaxis(made.latents_BTHWC, -1, 1), arrays["latent_given_to_decoder"]) <= tolerance
    want = np.moveaxis(arrays["video"], 1, -1)
    assert golden.relative_error(video, want) <= tolerance
    rounded = np.clip(np.round((want + 1) * 127.5), 0, 255)
    assert np.abs(made.videos_BTHWC - rounded).max() <= 1
    change = {"put_back": False} if "i2v" in name else {"guidance": made.settings["guidance"] * 1.1}
    other = generate(name, **change)[2].latents_BTHWC
    assert golden.relative_error(np.moveaxis(other, -1, 1), arrays["latent_given_to_decoder"]) > 10 * tolerance
