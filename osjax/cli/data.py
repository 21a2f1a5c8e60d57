"""`osjax data STEP IN OUT`: from raw videos and captions to a data set. Steps of curation read and write tables."""

from functools import partial
from pathlib import Path

from osjax import lock
from osjax.errors import UserError

TABLE_STEPS = {
    "probe": "measure every video and drop the broken, short, slow and badly coded ones",
    "cut": "cut videos into clips of one shot; they are written to the folder OUT with .clips for its suffix",
    "score": "score clips: motion, jitter, blur, a hash for duplicates; by config text and beauty",
    "filter": "keep the clips whose scores are within the config's thresholds, one of each near-duplicates",
    "caption": "caption clips by the server config.caption.url",
}


def add_options(parser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, parser_class=type(parser))
    described = {
        **{name: (text, "OUT", "table to write, .parquet or .csv") for name, text in TABLE_STEPS.items()},
        "stats": ("a page with histograms and example frames", "OUT", "page to write, .html"),
        "build": ("a TFDS data set in ArrayRecord files of the captioned clips", "OUT", "folder to write to"),
    }
    for name, (summary, out, of_out) in described.items():
        step = steps.add_parser(name, description=summary, help=summary)
        step.add_argument(
            "source", metavar="IN", help="a .csv or .parquet table, or a folder of videos with .txt captions"
        )
        step.add_argument("out", metavar=out, help=of_out)
        step.add_argument("--root", help="the folder that all clips lie in (default: IN, or its folder)")
        if name == "build":
            step.add_argument("--min-frames", type=int, default=1, help="drop clips with fewer frames")
    summary = "all of the config's steps, from config.source to tables in the folder config.out"
    steps.add_parser("run", description=summary, help=summary)


def run(cfg, args) -> None:
    if args.step == "build":
        return _build(args)
    from osjax.curation import pyramid
    from osjax.parts import curation

    if args.step == "run":
        keys, steps = curation.of_config(cfg)
        if not keys.source or not keys.out:
            raise UserError("no source or out: give --config.source=FOLDER_OR_TABLE and --config.out=FOLDER", status=2)
        source, out = Path(keys.source), Path(keys.out)
        return pyramid.run_all(steps, keys.steps, source, out, keys.root, partial(_page, keys))
    if args.root and not Path(args.root).is_dir():
        raise UserError(f"--root={args.root} is no folder: name the one that all clips lie in", status=2)
    source, out = Path(args.source), Path(args.out)
    keys, steps = curation.of_config(cfg, args.step)
    if args.step == "stats":
        print(f"stats: {_page(keys, source, out, args.root)} clips in {out}")
    else:
        print(pyramid.run_step(steps, args.step, source, out, args.root))


def _page(keys, source: Path, out: Path, root: str | None, counts=()) -> int:
    """Write the page of `stats`; the number of clips."""
    from osjax.curation import stats
    from osjax.curation.isolate import Pool
    from osjax.pages import clips

    clips.check(out)
    with Pool(keys.limits) as pool:
        summary = stats.summary(source, pool, keys.stats.examples, root)
    stages = [(count.stage, count.kept, count.dropped) for count in counts]
    clips.write(out, f"{summary.name}: {summary.count} clips", summary.numbers, summary.shown, summary.reasons, stages)
    return summary.count


def _build(args) -> None:
    from osjax.data import remote

    if remote.is_url(args.out):
        return _built(args)
    with lock.held(args.out, "osjax data build"):
        _built(args)


def _built(args) -> None:
    from osjax.curation import tables
    from osjax.curation.probe import probe
    from osjax.data import dataset, remote

    probed = probe(args.source, args.min_frames, args.root)
    told = ""
    if probed.dropped and not remote.is_url(args.out):
        told = f", reasons in {Path(args.out) / 'dropped.parquet'}"
        tables.write(Path(args.out) / "dropped.parquet", probed.dropped)
    print(f"{len(probed.kept)} clips kept, {len(probed.dropped)} dropped{told}")
    print(f"data set: {dataset.build_clips(probed.kept, args.out)}")
