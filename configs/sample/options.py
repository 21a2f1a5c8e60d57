"""Every key of a sampling config, with units. None under `sample` leaves the choice to the workdir or the default."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def options() -> ConfigDict:
    cfg = ConfigDict()
    cfg.workdir = placeholder(str)  # of a finished run, to sample from what was trained there
    cfg.model = velocity_model()  # or from files with the original's names
    cfg.autoencoder = autoencoder()
    cfg.text = ConfigDict({"width": 64, "max_length": 16})  # built-in encoder: features, words
    cfg.text.t5 = placeholder(str)  # folder of T5 v1.1 in the Hugging Face layout; with clip, instead of the built-in
    cfg.text.clip = placeholder(str)  # folder of CLIP-L
    cfg.image = ConfigDict({"model": velocity_model("flux"), "autoencoder": autoencoder()})  # mode t2i2v: first frame
    cfg.dtype = "bfloat16"  # of velocity models from files: weights and computation
    cfg.attention = "auto"  # of velocity models from files: flash on GPU and TPU, blockwise on a CPU; or one by name
    cfg.sample = ConfigDict()
    cfg.sample.mode = "t2v"  # t2v, i2v_head, i2v_tail, i2v_loop, v2v_head, v2v_tail, v2v_..._easy, t2i2v
    cfg.sample.resolution = placeholder(str)  # such as 256px or 720p: its size table by aspect ratio
    cfg.sample.aspect_ratio = placeholder(str)  # width:height, such as 16:9
    cfg.sample.height = placeholder(int)  # pixels; with width, instead of the table
    cfg.sample.width = placeholder(int)
    cfg.sample.frames = placeholder(int)
    cfg.sample.steps = placeholder(int)
    cfg.sample.guidance = placeholder(float)  # on the text; 1 is none
    cfg.sample.guidance_img = placeholder(float)  # on given images and clips; 1 is none
    cfg.sample.text_oscillation = placeholder(bool)  # no guidance on odd steps after the tenth
    cfg.sample.image_oscillation = placeholder(bool)
    cfg.sample.image_ramp = placeholder(bool)  # image guidance grows over frames, falls over steps
    cfg.sample.shift = placeholder(bool)  # of the timesteps, by size and duration
    cfg.sample.alpha = placeholder(float)  # replaces that shift
    cfg.sample.negative = placeholder(str)  # negative prompt
    cfg.sample.fps = placeholder(int)  # frames per second of the file
    cfg.sample.state_fps = placeholder(bool)  # end the prompt with the frame rate
    cfg.sample.motion_score = placeholder(int)  # end the prompt with a motion score: 1 still, 7 fast
    cfg.sample.seed = placeholder(int)
    cfg.sample.put_back = placeholder(bool)  # given images replace what was sampled in their place
    cfg.sample.drop_padding = placeholder(bool)  # leave out frames that a padded image repeats
    cfg.sample.image_resolution = placeholder(str)  # t2i2v: of the first frame
    cfg.sample.image_steps = placeholder(int)
    cfg.sample.image_guidance = placeholder(float)

    cfg.output = ConfigDict()
    cfg.output.folder = "samples"
    cfg.output.layout = "plain"  # or vbench: {prompt}-{i}.mp4
    cfg.output.samples = 1  # a prompt
    cfg.output.overwrite = False  # make again what is there with other settings

    cfg.mesh = ConfigDict({"data": 1, "fsdp": 1, "sequence": 1, "tensor": 1})  # of the video model; -1: devices left
    cfg.offload = False  # weights wait on the host; the models visit the device one after the other
    cfg.int8 = False  # int8 weights in the blocks of the video model; needs osjax[int8]
    cfg.compilation_cache = "~/.cache/osjax"  # compiled programs are kept here; empty keeps none
    return cfg


def velocity_model(layout: str = "open_sora_v2") -> ConfigDict:
    cfg = ConfigDict({"weights": placeholder(str), "layout": layout})  # .safetensors; open_sora_v2 or flux
    cfg.config = ConfigDict()  # keys of MMDiTConfig; empty is the 11B video model
    cfg.adapter = placeholder(str)  # LoRA: .safetensors, a folder of peft, or checkpoints of a stage that trained one
    cfg.adapter_strength = 1.0  # times the scale that it was trained with
    return cfg


def released(resolution: str, frames: int) -> ConfigDict:
    """The released Open-Sora v2 with the HunyuanVideo autoencoder, its files in `ckpts/`."""
    cfg = options()
    cfg.model.weights = "ckpts/Open_Sora_v2.safetensors"
    cfg.autoencoder = autoencoder("hunyuan")
    cfg.autoencoder.weights = "ckpts/hunyuan_vae.safetensors"
    cfg.autoencoder.dtype = "bfloat16"  # as the original samples
    cfg.autoencoder.config.use_spatial_tiling = True  # so, too
    cfg.text.t5 = "ckpts/google/t5-v1_1-xxl"
    cfg.text.clip = "ckpts/openai/clip-vit-large-patch14"
    cfg.sample.resolution = resolution
    cfg.sample.aspect_ratio = "16:9"
    cfg.sample.frames = frames
    cfg.sample.fps = 24
    cfg.sample.motion_score = 4
    return cfg


def autoencoder(family: str = "dcae") -> ConfigDict:
    cfg = ConfigDict({"weights": placeholder(str), "family": family})
    cfg.dtype = "float32"  # of the computation
    cfg.config = ConfigDict()  # keys of the family's config; empty is the released one
    return cfg
