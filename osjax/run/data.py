"""`osjax data probe IN OUT.csv` and `osjax data build IN FOLDER`: from videos and captions to a data set."""

from pathlib import Path

from osjax.errors import UserError


def add_options(parser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, parser_class=type(parser))
    for name, out, summary in (
        ("probe", "OUT", "measure every clip; OUT.csv lists the good ones, OUT.dropped.csv the others with reasons"),
        ("build", "OUT", "probe, then build a TFDS data set in ArrayRecord files in the folder OUT"),
    ):
        step = steps.add_parser(name, description=summary, help=summary)
        step.add_argument(
            "source", metavar="IN", help="a .csv or .parquet table, or a folder of videos with .txt captions"
        )
        step.add_argument("out", metavar=out)
        step.add_argument("--min-frames", type=int, default=1, help="drop clips with fewer frames")


def run(cfg, args) -> None:
    from osjax.curation.probe import probe
    from osjax.data import dataset, table

    out = Path(args.out)
    if args.step == "probe" and out.suffix != ".csv":
        raise UserError(f"{out} is not a .csv file: name the table to write, such as clips.csv", status=2)
    found = probe(args.source, args.min_frames)
    print(f"{len(found.kept)} clips kept, {len(found.dropped)} dropped")
    if args.step == "build":
        print(f"data set: {dataset.build_clips(found.kept, out)}")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    # Relative paths of a table are read from its own folder, and OUT may lie elsewhere.
    absolute = [{**row, "path": str(Path(row["path"]).absolute())} for row in found.kept]
    table.write_csv(out, absolute)
    if found.dropped:
        dropped = out.with_suffix(".dropped.csv")
        table.write_csv(dropped, [{**row, "path": str(Path(row["path"]).absolute())} for row in found.dropped])
        print(f"dropped clips with reasons: {dropped}")
