"""Words of prompts that a text encoder has no room for: they are told of, rather than left out in silence."""

import logging
from collections.abc import Sequence

from osjax.sampling.encoders import PromptEncoder

log = logging.getLogger(__name__)
SHOWN = 200  # characters of the words


def tell(encoder: PromptEncoder, texts: Sequence[str]) -> None:
    """Log what of these texts an encoder cuts. encoder: of prompts; one of the caller's own may not know."""
    cut = getattr(encoder, "cut", None)
    if cut is None:
        return
    for text in dict.fromkeys(texts):
        for what, words in cut(text).items():
            shown = words if len(words) <= SHOWN else f"{words[:SHOWN]} ..."
            log.warning("%r is longer than %s; cut is %r", text[:40], what, shown)
