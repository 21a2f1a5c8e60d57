"""Curation as in the report: `osjax data run --config=configs/curation/report.py --config.source=VIDEOS
--config.out=FOLDER`, or step by step by `osjax data STEP IN OUT`, which reads the same keys.

Any machine with CPU cores; docs/data.md has the time each step takes. The report does not state its thresholds for
scores, so those of `filter` are ours: look at the page of `osjax data stats` and set your own. Every key is a field of
`CurationKeys` in osjax/parts/curation.py.
"""

from ml_collections import ConfigDict

from osjax.parts import curation


def get_config() -> ConfigDict:
    return curation.keys()
