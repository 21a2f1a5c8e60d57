"""What a stage trains on, as config keys say it."""

from dataclasses import dataclass

from osjax.errors import UserError
from osjax.parts.groups import refuse

CACHED = ("cached", "cached_text", "features")  # keys of latents from disk, which only the video model learns from


@dataclass(frozen=True)
class ChooseKeys:
    """Buckets of the lengths and aspect ratios that the clips of data.source have, instead of rows of `buckets`."""

    resolution: str = ""  # pixels to train at, such as 256px; empty: the rows of data.buckets
    lengths: int = 2  # different numbers of frames, at most; each costs a compilation for every aspect ratio
    aspects: int = 3  # different aspect ratios, at most
    frames: int = 129  # of the longest clips to train on
    batch: int = 1  # clips of a step
    images: int = 0  # images of a step, where there are any; 0: none

    def __post_init__(self):
        if not self.resolution:
            refuse(self, "data.choose", ("resolution",), "data.choose.resolution is empty")
        if min(self.lengths, self.aspects, self.batch) < 1 or self.frames < 2 or self.images < 0:
            raise UserError(
                "lengths, aspects and batch must be 1 or more, frames 2 or more, images 0 or more", status=2
            )


@dataclass(frozen=True)
class DataKeys:
    """The `data` group of a stage."""

    source: str | None = None  # data set of `osjax data build`; none: the run's own clips
    held_out: str | None = None  # data set for evaluation
    held_out_share: float = 0.0  # of the clips, kept from training for evaluation, where no data set is; 0 to 1
    cached: bool = False  # latents from disk instead of encoding every batch, clips from their first frame on
    cached_text: bool = False  # text features from disk as well: 4 MB a clip with T5
    features: str | None = None  # folder of `osjax encode`; none: workdir/latents, filled when training begins
    buckets: tuple = ()  # rows (resolution, frames, probability to keep, batch), such as ("256px", 33, 1.0, 12)
    choose: ChooseKeys = ChooseKeys()
    fill: bool = False  # a batch that its clips do not fill takes some of them again; else they wait for another pass
    batch_per_device: bool = False  # batches are of one data-parallel device, not of all together
    fps_max: float = 24.0  # frames are left out by whole factors down to this rate
    state_fps: bool = False  # captions end with their clip's frame rate
    state_motion: bool = False  # captions end with the motion score that `osjax data score` gave their clip
    random_start: bool = True  # clips longer than their bucket start anywhere; never with `cached`
    exact_resize: bool = False  # pixels between the levels of 8 bits, as the original has them; four times the memory
    ahead_gb: float = 4.0  # gigabytes of batches of the largest bucket that may wait to be used, per process
    threads: int = 2  # decoding, per process
    # Processes that decode instead; one that dies or hangs is replaced. 0: the threads do. None: as many as threads for
    # data sets, which may come from anywhere, and the threads for clips that the run made itself.
    workers: int | None = None
    timeout_s: float = 60.0  # seconds that one clip may take in a worker; a clip beyond them counts as undecodable
    image_ratio: float = 0.0  # autoencoders: share of the batches that is cut to single frames: images

    def __post_init__(self):
        if self.choose.resolution and self.buckets:
            raise UserError("data.choose.resolution chooses buckets: leave data.buckets empty", status=2)
        if self.threads < 1:
            raise UserError(f"threads is {self.threads}: give 1 or more", status=2)
        if (self.workers or 0) < 0 or not self.timeout_s > 0:
            raise UserError(f"workers {self.workers} must be 0 or more, timeout_s {self.timeout_s} above 0", status=2)
        if not self.ahead_gb > 0:
            raise UserError(f"ahead_gb is {self.ahead_gb}: give gigabytes, such as 4", status=2)
        if not self.fps_max > 0:
            raise UserError(f"fps_max is {self.fps_max}: give frames per second, such as 24", status=2)
        if not 0 <= self.held_out_share < 1:
            raise UserError(f"held_out_share is {self.held_out_share}: give a share below 1", status=2)
        if self.held_out:
            refuse(self, "data", [k for k in vars(self) if k != "held_out_share"], "data.held_out names other clips")
        if not 0 <= self.image_ratio <= 1:
            raise UserError(f"image_ratio is {self.image_ratio}: give a share from 0 to 1", status=2)


def check(keys: DataKeys, kind: str, evaluates: bool, key: str = "data") -> None:
    """UserError for keys that say nothing in a stage of this kind.

    evaluates: whether the stage looks at held-out clips. key: the group's dotted name.
    """
    everything = tuple(DataKeys.__dataclass_fields__)
    if kind == "autoencoder":
        refuse(keys, key, [k for k in everything if k not in CACHED], "an autoencoder learns from videos")
        refuse(keys, key, [k for k in everything if k != "choose"], "buckets are chosen for the video model alone")
    else:
        refuse(keys, key, [k for k in everything if k != "image_ratio"], "images have buckets of their own (1 frame)")
        if not keys.cached:
            refuse(keys, key, [k for k in everything if k not in CACHED], f"{key}.cached is off")
    if keys.workers == 0:
        refuse(keys, key, [k for k in everything if k != "timeout_s"], f"{key}.workers is 0")
    if kind == "autoencoder":
        refuse(
            keys, key, [k for k in everything if k not in ("state_fps", "state_motion")], "an autoencoder takes no text"
        )
    if not evaluates:
        read = [k for k in everything if k not in ("held_out", "held_out_share")]
        refuse(keys, key, read, "evaluate.every is 0")
