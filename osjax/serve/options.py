"""What a server may be told, and what its clients may ask for."""

import ipaddress
from dataclasses import dataclass

from osjax.errors import UserError
from osjax.sampling.refine import TextServer

LOOPBACK_NAMES = ("localhost",)


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for.

    prompt: characters. pixels: of a frame. frames, steps: of a video. longer: frames of one that was made longer.
    json_mb: of a body that is no form, which is held in memory. upload_mb, upload_pixels, upload_seconds: of a
    reference, its bytes, the pixels of a frame and its length. queued: videos that wait, of all clients;
    queued_per_key: of one. streams: events that are followed at once. body_s: seconds that the body of a request may
    take to arrive. free_mb: of the disk, below which no new video is taken.
    """

    prompt: int = 4000
    pixels: int = 2**20
    frames: int = 257
    longer: int = 1025
    steps: int = 200
    upload_mb: int = 32
    json_mb: int = 8
    upload_pixels: int = 2**25
    upload_seconds: int = 120
    queued: int = 1000
    queued_per_key: int = 1000
    streams: int = 200
    body_s: float = 60.0
    free_mb: int = 256

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value >= (0 if name == "free_mb" else 1):
                raise UserError(f"{name} is {value}: give 1 or more")


@dataclass(frozen=True)
class Keep:
    """How long finished videos stay. days: since they were finished. gb: of all; the oldest go first."""

    days: float = 30.0
    gb: float = 20.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value > 0:
                raise UserError(f"{name} is {value}: give more than 0")


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens and what it keeps.

    host, port: of its address; any host but loopback asks every client for a key. folder: of its queue, videos and
    keys. require_key: on loopback, too, as behind a proxy. hosts: further names that clients may know it by, as
    `name:port`. warm: resolutions, such as 256px, that are compiled for before somebody asks, besides each model's own
    size. refine: the server that makes prompts fuller for clients who ask for that. loaded: models that are held at
    once; the one that was used longest ago makes room.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    folder: str = "served"
    require_key: bool = False
    hosts: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()
    loaded: int = 1
    refine: TextServer = TextServer()
    limits: Limits = Limits()
    keep: Keep = Keep()

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise UserError(f"port is {self.port}: give 1 to 65535, or 0 for a free one")
        if self.loaded < 1:
            raise UserError(f"loaded is {self.loaded}: at least 1 model is held")

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone reaches it."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def needs_key(self) -> bool:
        """Whether every request must have a key."""
        return self.require_key or not self.is_loopback
