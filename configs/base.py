"""Every key of a training run, with units. A config file makes a stage, changes keys, and returns `single(...)`.

A run has one stage, its keys beside those of the run, or several: `curriculum({name: stage, ...})`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def single(name: str, stage: ConfigDict) -> ConfigDict:
    """A run of one stage."""
    cfg = run(f"runs/{name}")
    cfg.name = name
    for key in stage:
        cfg[key] = stage[key]
    return cfg


def curriculum(name: str, stages: dict[str, ConfigDict]) -> ConfigDict:
    """A run of several stages, in this order; a finished one is not run again."""
    cfg = run(f"runs/{name}")
    cfg.order = tuple(stages)
    cfg.stages = ConfigDict(stages)
    return cfg


def run(workdir: str) -> ConfigDict:
    cfg = ConfigDict()
    cfg.workdir = workdir  # metrics.jsonl, model.json, data made here, and checkpoints
    cfg.checkpoints = placeholder(
        str
    )  # folder for checkpoints elsewhere, such as gs://bucket/run; none: in the workdir
    cfg.source = placeholder(str)  # data set of `osjax data build`, for all stages that name none in data.source
    cfg.clips = ConfigDict()  # procedural clips for runs that bring no data; made in workdir/data
    cfg.clips.train = 0  # number of clips; 0 makes none
    cfg.clips.held_out = 0
    cfg.clips.frames = 8
    cfg.clips.size = 64  # pixels of a side
    cfg.clips.fps = 8
    cfg.clips.seed = 0
    cfg.compilation_cache = "~/.cache/osjax"  # compiled steps are kept here; empty keeps none
    cfg.tensorboard = False  # also write workdir/tensorboard; needs osjax[tensorboard]
    cfg.wandb = placeholder(str)  # project of Weights & Biases to write to as well; needs osjax[wandb]
    return cfg


def _stage(kind: str) -> ConfigDict:
    """What stages of every kind have."""
    cfg = ConfigDict()
    cfg.kind = kind
    cfg.seed = 42
    cfg.steps = 0  # updates
    cfg.mesh = ConfigDict({"data": -1, "fsdp": 1, "sequence": 1, "tensor": 1})  # sizes; -1 takes the devices left
    cfg.model = ConfigDict()
    cfg.start = start()
    cfg.data = data()
    cfg.optimizer = optimizer()
    cfg.freeze = freeze()
    cfg.checkpoint = ConfigDict()
    cfg.checkpoint.every = 0  # steps; 0: only at the end
    cfg.checkpoint.keep = 2  # the newest so many
    cfg.checkpoint.keep_every = 0  # steps whose multiples are kept for good; 0: none
    cfg.health = ConfigDict()
    cfg.health.max_skipped = 10  # non-finite updates in a row, then back to the last checkpoint
    cfg.health.spike_factor = 0.0  # a loss so many times the recent median is a spike; 0: look for none
    cfg.health.spike_window = 100  # steps of that median
    cfg.health.spike_steps = 5  # spikes in a row, then back to the last checkpoint
    cfg.health.max_rollbacks = 3
    cfg.hang = ConfigDict()
    cfg.hang.factor = 0.0  # median steps without a step, then exit 75 with the stacks; 0: never
    cfg.hang.least_s = 600.0  # seconds that are always allowed
    cfg.evaluate = ConfigDict()
    cfg.evaluate.every = 0  # steps between losses on held-out batches; 0: never
    cfg.evaluate.batches = 2
    cfg.evaluate.prompts = ()  # texts to sample then, with the settings of `sample`, into workdir/samples/STAGE
    return cfg


def start() -> ConfigDict:
    """Where weights come from; nothing given is a fresh start. Give one of stage and weights."""
    cfg = ConfigDict()
    cfg.stage = placeholder(str)  # name of an earlier stage of this run
    cfg.weights = placeholder(str)  # a weight file, or a folder with checkpoints
    cfg.layout = "open_sora_v2"  # of velocity models in files: open_sora_v2 or flux
    cfg.config = ConfigDict()  # keys of the model in `weights` that differ from this stage's
    cfg.average = True  # take the moving average where the stage kept one
    cfg.inflate = False  # they are an image DC-AE's: its flat kernels become the middle taps of a video model's
    return cfg


def data() -> ConfigDict:
    cfg = ConfigDict()
    cfg.source = placeholder(str)  # data set of `osjax data build`; none: the run's own clips
    cfg.held_out = placeholder(str)  # data set for evaluation
    cfg.cached = False  # latents from disk instead of encoding every batch, clips from their first frame on
    cfg.cached_text = False  # text features from disk as well: 4 MB a clip with T5
    cfg.features = placeholder(str)  # folder of `osjax encode`; none: workdir/latents, filled when training begins
    cfg.buckets = ()  # rows (resolution, frames, probability to keep, batch), such as ("256px", 33, 1.0, 12)
    cfg.batch_per_device = False  # batches are of one data-parallel device, not of all together
    cfg.fps_max = 24.0  # frames are left out by whole factors down to this rate
    cfg.state_fps = False  # captions end with their clip's frame rate, as prompts do under sample.state_fps
    cfg.random_start = True  # clips longer than their bucket start anywhere
    cfg.threads = 2  # decoding, per process
    cfg.workers = 0  # processes that decode instead, per process; one that dies or hangs is replaced. 0: the threads do
    cfg.timeout_s = 60.0  # seconds that one clip may take in a worker; a clip beyond them counts as undecodable
    return cfg


def freeze() -> ConfigDict:
    """Parameters that stay as they are, by their paths, such as double_blocks/txt_mlp_in/kernel."""
    cfg = ConfigDict()
    cfg.params = ()  # patterns; a group such as "img_in" means all below it, "*" everything
    cfg.but = ()  # exceptions
    return cfg


def optimizer() -> ConfigDict:
    """AdamW as the report has it (section 4.2)."""
    cfg = ConfigDict()
    cfg.lr = 5e-5
    cfg.b1 = 0.9
    cfg.b2 = 0.999
    cfg.eps = 1e-15
    cfg.weight_decay = 0.0
    cfg.clip_norm = 1.0
    cfg.schedule = "constant"  # constant, cosine or step, after the warm-up
    cfg.warmup_steps = 0
    cfg.initial_lr = 1e-6  # of the warm-up
    cfg.decay_steps = 0  # cosine: updates until final_lr_ratio
    cfg.final_lr_ratio = 0.0
    cfg.milestones = ()  # step: rows (update, learning rate from there on)
    cfg.accumulate = 1  # micro-batches per update
    cfg.ema_decay = 0.0  # per update; 0 keeps no average
    cfg.moment_dtype = "float32"  # of Adam's first moment; or bfloat16
    return cfg


def diffusion() -> ConfigDict:
    """A stage of the video model."""
    cfg = _stage("diffusion")
    cfg.model.in_channels = 64  # of a token: latent channels * patch_size ** 2
    cfg.model.vec_in_dim = 768  # pooled text (CLIP)
    cfg.model.context_in_dim = 4096  # text states (T5)
    cfg.model.hidden_size = 3072
    cfg.model.mlp_ratio = 4.0
    cfg.model.num_heads = 24
    cfg.model.depth = 19  # double-stream blocks
    cfg.model.depth_single_blocks = 38
    cfg.model.axes_dim = (16, 56, 56)  # head dimensions for frame, row, column
    cfg.model.theta = 10_000.0  # rotary base
    cfg.model.patch_size = 2
    cfg.model.cond_embed = True  # takes given images and clips
    cfg.model.dtype = "bfloat16"  # of the computation; parameters are float32
    cfg.model.attention = "dense"  # dense, flash, blockwise, ring, ulysses, ulysses_ring
    cfg.model.attention_kernel = "flash"  # inside ring and ulysses: flash, blockwise or dense
    cfg.model.text_tokens = "sharded"  # over `sequence`, like video, or replicated
    cfg.model.remat = "none"  # none, full, save_attention, offload
    cfg.model.remat_blocks = placeholder(tuple)  # only the first so many double and single blocks, such as (8, 100)
    cfg.model.grad_reduce = "float32"  # in what gradients are summed over devices; or bfloat16
    cfg.autoencoder = ConfigDict()
    cfg.autoencoder.stage = placeholder(str)  # an autoencoder stage of this run, or
    cfg.autoencoder.weights = placeholder(str)  # a weight file, or a folder with checkpoints
    cfg.autoencoder.family = "hunyuan"  # of the file: hunyuan or dcae
    cfg.autoencoder.config = ConfigDict()  # keys of its family's config; empty is the released one
    cfg.autoencoder.dtype = "float32"  # of its computation; or bfloat16. Parameters are float32
    cfg.autoencoder.at_once = 0  # clips of one device that are encoded at a time; 0: its whole batch
    cfg.lora = lora()
    cfg.text = ConfigDict({"width": 64, "max_length": 16})  # built-in encoder: features, words
    cfg.text.t5 = placeholder(str)  # folder of T5 v1.1 in the Hugging Face layout; with clip, instead of the built-in
    cfg.text.clip = placeholder(str)  # folder of CLIP-L
    cfg.text_dropout = ConfigDict({"t5": 0.31622777, "clip": 0.31622777})  # probabilities, drawn independently
    cfg.modes = ConfigDict({"t2v": 1.0})  # condition modes with their weights
    cfg.sample = ConfigDict()  # settings that `osjax sample` takes as defaults
    return cfg


def lora() -> ConfigDict:
    """Low-rank adapters instead of the model, which `start` gives and which stays as it is."""
    cfg = ConfigDict()
    cfg.rank = 0  # 0: train the model
    cfg.alpha = 16.0  # adapters are scaled by alpha / rank
    # Patterns over the paths of dense layers: here the projections of attention; "*_blocks/*mlp*" is the feed-forward.
    cfg.targets = ("*_blocks/*attn/qkv", "*_blocks/*proj")
    cfg.start = placeholder(str)  # adapters to go on with: .safetensors, a folder of peft or checkpoints; none: fresh
    cfg.base_dtype = "float32"  # of the model beneath; bfloat16 halves its memory
    return cfg


def autoencoder() -> ConfigDict:
    """A stage of the Video DC-AE."""
    cfg = _stage("autoencoder")
    cfg.family = "dcae"
    cfg.dtype = "float32"  # of the computation; or bfloat16. Parameters are float32
    cfg.remat = False  # recompute every level's activations in the backward pass
    cfg.optimizer.lr = 5e-5
    cfg.data.image_ratio = 0.0  # share of the batches that is cut to single frames: images
    cfg.losses = ConfigDict()
    cfg.losses.perceptual_weight = 0.0  # LPIPS beside L1; the report's is 0.5
    cfg.losses.mse_weight = 0.0  # squared error beside L1
    cfg.losses.image_weight = 0.0  # the same loss on one frame of each clip, taken as an image
    cfg.losses.alignment_weight = 0.0  # latent distillation: an encoder level towards DINOv2; 0: none
    cfg.losses.crop = 0  # pixels of random square cuts to train on; 0 takes whole clips
    cfg.lpips = ConfigDict()
    cfg.lpips.weights = placeholder(str)  # a file or checkpoint, or a folder with vgg.pth and vgg16-397923af.pth
    cfg.lpips.untrained = False  # random kernels instead: a distance like LPIPS, to compare runs with, no LPIPS
    cfg.lpips.config = ConfigDict()  # keys of its config; empty is the published one
    cfg.adversary = adversary()
    cfg.dinov2 = ConfigDict()
    cfg.dinov2.weights = placeholder(str)  # a published file, such as dinov2_vitb14_pretrain.pth
    cfg.dinov2.config = ConfigDict()  # keys of its config; empty is ViT-B/14
    cfg.dinov2.level = 3  # of the encoder, counted from 1, whose output is aligned
    cfg.dinov2.frames = 4  # latent frames of each clip, drawn anew every step; 0: all
    cfg.latent_statistics = ConfigDict({"clips": 0, "resolution": ""})  # measure scale and shift on so many; 0: none
    return cfg


def adversary() -> ConfigDict:
    """The adversarial phase of an autoencoder stage. Weights and starts are the report's and the original's."""
    cfg = ConfigDict()
    cfg.disc_weight = 0.0  # generator loss, times the adaptive weight; the report's is 0.05. 0: no discriminator
    cfg.disc_factor = 1.0  # both adversarial losses
    cfg.gen_start = 0  # updates before the generator loss counts
    cfg.disc_start = 0  # updates before the discriminator learns
    cfg.disc_loss_type = "hinge"  # hinge, vanilla or wgan-gp
    cfg.lecam_weight = 0.0  # keeps the discriminator's logits near their averages; 0: as the original
    cfg.lecam_decay = 0.99  # of those averages, per update
    cfg.model = ConfigDict({"ndf": 64, "n_layers": 5, "dropout": 0.3})  # the discriminator's config
    cfg.optimizer = optimizer()
    cfg.optimizer.lr = 1e-4
    for key in ("accumulate", "ema_decay"):  # batches are split as the autoencoder's are; no average is kept
        del cfg.optimizer[key]
    return cfg
