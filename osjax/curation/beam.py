"""The shards of a step as an Apache Beam pipeline: in this process by default, elsewhere by Beam's own options."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from osjax.curation import engine
from osjax.curation.isolate import Limits, Pool, need
from osjax.errors import UserError


class _Work:
    """What a Beam worker holds: its pool of processes lives as long as the worker does."""

    def __init__(self, step: engine.Step, work: Path, limits: Limits):
        self.step, self.work, self.limits = step, work, limits

    def do_fn(self):
        import apache_beam as beam

        outer = self

        class Shards(beam.DoFn):
            def setup(self):
                self.pool = Pool(outer.limits).__enter__()

            def process(self, name):
                engine.shard(outer.step, outer.work, name, self.pool)
                yield name

            def teardown(self):
                self.pool.__exit__()

        return Shards()


def run(step: engine.Step, work: Path, names: Sequence[str], limits: Limits, options: Sequence[str]) -> None:
    """Work the shards called `names` below `work`, a folder that all workers must see.

    step: what is done with each. limits: of one clip. options: Beam's, such as ("--runner=FlinkRunner",
    "--flink_master=host:8081"). UserError for options that are wrong, and where a clip's error stops the step.
    A shard that ran twice is written twice, with equal content.
    """
    root = logging.getLogger()
    level, root.level = root.level, logging.ERROR  # it warns of clients for Google's services, which nobody asked for
    try:
        beam = need("apache_beam", "beam")
    finally:
        root.level = level
    from apache_beam.options.pipeline_options import PipelineOptions

    parsed = PipelineOptions(list(options), save_main_session=False)
    try:
        begun = beam.Pipeline(options=parsed)
    except ValueError as error:
        raise UserError(f"config.beam: {error}", status=2) from error
    try:
        with _without_traces_of_user_errors(), begun as pipeline:
            _ = (
                pipeline
                | "shards" >> beam.Create(list(names))
                | "spread" >> beam.Reshuffle()
                | step.name >> beam.ParDo(_Work(step, work, limits).do_fn())
            )
    except UserError as error:
        raise UserError(_told(str(error))) from error
    except RuntimeError as error:  # a worker elsewhere sends the text of a traceback
        kind, told = cause(str(error))
        if kind == "osjax.errors.UserError":
            raise UserError(told) from error
        raise RuntimeError(f"{kind}: {told}" if kind else str(error)) from error


def cause(trace: str) -> tuple[str, str]:
    """The kind and the words of the error that ends a traceback in a worker's text, empty where there is none."""
    lines = re.findall(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Lost)): (.*)$", trace, re.MULTILINE)
    return (lines[-1][0], _told(lines[-1][1])) if lines else ("", "")


def _told(line: str) -> str:
    return line.split(" [while running")[0]  # which Beam adds


@contextmanager
def _without_traces_of_user_errors() -> Iterator[None]:
    """Beam logs the stack of whatever a worker raises; of a UserError its one line says enough."""

    def keep(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], UserError))

    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(keep)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(keep)
