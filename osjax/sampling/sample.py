"""What a call of the pipeline made: videos to save, and to look at in a notebook."""

import html
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from osjax.errors import UserError
from osjax.sampling.names import file_stem
from osjax.sampling.write import CRF, SUFFIXES, Output, encode, suffix_of, write
from osjax.types import Json


class Spent(NamedTuple):
    """Calls of the video model that ran its blocks, of `calls` in all, those that a cache spared among them."""

    ran: int = 0
    calls: int = 0


@dataclass(frozen=True)
class Sample:
    """The videos that a call made, one row each.

    videos_BTHWC: uint8. latents_BTHWC: normalised, float32. settings: what all rows have in common, sizes included.
    rows: prompt, the text that the encoder was given, negative prompt and seed of each.
    """

    videos_BTHWC: np.ndarray
    latents_BTHWC: np.ndarray
    settings: Json
    rows: list[Json]

    def save(self, path: Path | str, crf: int = CRF) -> list[Path]:
        """Write the videos and beside each a JSON of its settings; the paths of the videos.

        path: `NAME.mp4`, or `NAME.png` for one frame, is the file of a single video, its JSON `NAME.json`. Anything
        else is a folder, made where it is missing, with a file for every video, named by its number and its prompt. A
        file of the same name is replaced; each appears whole or not at all. crf: of MP4s, 0 (nothing is lost) to 51.
        UserError for a path that cannot be written, and for a file that cannot hold these videos.
        """
        path, output = Path(path).absolute(), Output(Path(path), crf=crf)
        if path.suffix.lower() in SUFFIXES:
            if len(self.videos_BTHWC) != 1:
                raise UserError(f"{path} is one file, but there are {len(self.videos_BTHWC)} videos: give a folder")
            places = [(path, path.with_suffix(".json"))]
        else:
            frames = self.videos_BTHWC.shape[1]
            stems = [file_stem(i, row["prompt"]) for i, row in enumerate(self.rows)]
            places = [(output.media(stem, frames), output.json(stem)) for stem in stems]
        try:
            for (media, settings), video_THWC, row in zip(places, self.videos_BTHWC, self.rows, strict=True):
                write(media, settings, video_THWC, {**self.settings, **row}, self.settings["fps"], crf)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror or error}): give another path") from error
        return [media for media, _ in places]

    def _repr_html_(self) -> str:
        """The videos with their prompts and seeds, as a notebook shows them: inline, without a file."""
        return "".join(map(self._figure, self.videos_BTHWC, self.rows))

    def _figure(self, video_THWC: np.ndarray, row: Json) -> str:
        suffix = suffix_of(len(video_THWC))
        data = b64encode(encode(video_THWC, suffix, self.settings["fps"])).decode("ascii")
        if suffix == ".png":
            shown = f'<img src="data:image/png;base64,{data}">'
        else:
            shown = f'<video src="data:video/mp4;base64,{data}" controls loop muted></video>'
        caption = html.escape(f"{row['prompt']} (seed {row['seed']})")
        return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"
