"""Curation as in the report, with every key: `osjax data run --config=configs/curation/report.py
--config.source=VIDEOS --config.out=FOLDER`, or step by step by `osjax data STEP IN OUT`, which reads the same keys.

Any machine with CPU cores; docs/data.md has the time each step takes. The report does not state its thresholds for
scores, so those of `filter` are ours: look at the page of `osjax data stats` and set your own.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config():
    cfg = ConfigDict()
    cfg.source = placeholder(str)  # of `data run`: a folder of videos, or a table
    cfg.out = placeholder(str)  # of `data run`: folder for tables, clips and the page
    cfg.root = placeholder(str)  # folder that the source's clips lie in; none: the source, or its table's folder
    cfg.steps = ("probe", "cut", "score", "filter", "stats")  # of `data run`; caption goes before stats
    cfg.shard = 64  # clips that are worked on, and lost in a kill, together
    cfg.engine = "auto"  # beam; loop: without Apache Beam; auto: beam where it is installed
    cfg.beam = ""  # Beam's options in one line, such as "--runner=FlinkRunner --flink_master=host:8081"
    cfg.limits = ConfigDict()  # of one clip; what goes beyond is quarantined
    cfg.limits.seconds = 60.0  # of work on any clip
    cfg.limits.per_second = 20.0  # seconds of work more for each second of its video
    cfg.limits.memory_gb = 16.0  # address space of a worker process; 0: no limit
    cfg.limits.workers = 0  # processes; 0: one per core

    cfg.probe = ConfigDict()
    cfg.probe.min_seconds = 2.0
    cfg.probe.min_bits_per_pixel = 0.02
    cfg.probe.min_fps = 16.0
    cfg.probe.min_aspect = 1 / 3  # height over width
    cfg.probe.max_aspect = 3.0
    cfg.probe.drop_profiles = ("Constrained Baseline",)

    cfg.cut = ConfigDict()
    cfg.cut.scene = 10.0  # libavfilter's scdet score, 0 to 100, from which a frame begins a shot
    cfg.cut.min_seconds = 2.0  # shorter shots are dropped
    cfg.cut.max_seconds = 8.0  # longer ones are split
    cfg.cut.max_side = 1080  # pixels of the long side
    cfg.cut.max_fps = 30.0  # videos of this rate and faster ...
    cfg.cut.fps = 24.0  # ... are written at this one, at which the loader samples
    cfg.cut.crf = 18  # of x264: lower is better and larger
    cfg.cut.preset = "veryfast"  # of x264
    cfg.cut.key_seconds = 2.0  # between key frames, at which the loader can begin to decode
    cfg.cut.borders = True  # crop black ones

    cfg.score = ConfigDict()
    cfg.score.metrics = ("motion", "jitter", "blur", "hash")  # text_area needs osjax[ocr], aesthetic the files below
    cfg.aesthetic = ConfigDict()
    cfg.aesthetic.clip = placeholder(str)  # folder of openai/clip-vit-large-patch14
    cfg.aesthetic.predictor = placeholder(str)  # sac+logos+ava1-l14-linearMSE.pth

    cfg.filter = ConfigDict()
    cfg.filter.order = ("motion", "jitter", "blur", "text_area", "aesthetic")  # columns, one stage each
    cfg.filter.motion = _range(0.3, 20.0)  # vmafmotion: stills below, chaos above
    cfg.filter.jitter = _range(None, 30.0)
    cfg.filter.blur = _range(20.0, None)  # blurred below
    cfg.filter.text_area = _range(None, None)  # fraction of the frame
    cfg.filter.aesthetic = _range(None, None)  # 1 to 10
    cfg.filter.duplicates = placeholder(int)  # bits of 192, at most 7, by which near-duplicates differ; none: keep all
    cfg.filter.duplicates = 7

    cfg.caption = ConfigDict()
    cfg.caption.url = placeholder(str)  # base of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1
    cfg.caption.model = placeholder(str)  # as the server calls it
    cfg.caption.key_variable = "OPENAI_API_KEY"  # environment variable that holds the server's key
    cfg.caption.frames = 4  # shown of each clip
    cfg.caption.side = 512  # pixels of their long side
    cfg.caption.per_minute = 0.0  # requests of one process; 0: no limit
    cfg.caption.parallel = 4  # requests under way
    cfg.caption.retries = 6
    cfg.caption.timeout = 120.0  # seconds of a request
    cfg.caption.tokens = 800  # of an answer

    cfg.stats = ConfigDict()
    cfg.stats.examples = 24  # clips that show a frame
    return cfg


def _range(low: float | None, high: float | None) -> ConfigDict:
    bounds = ConfigDict({"min": placeholder(float), "max": placeholder(float)})
    bounds.min, bounds.max = low, high
    return bounds
