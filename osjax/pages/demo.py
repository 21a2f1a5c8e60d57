"""The demo's report as a page: moving samples with every word of their prompts judged, then figures, then curves."""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from osjax.data import clips
from osjax.data.clips import WORDS
from osjax.pages import page

_CHOICES = (clips.COLOURS, clips.SHAPES, clips.DIRECTIONS, clips.TINTS, clips.BACKGROUNDS, clips.SPEEDS)
CHANCE = {word: 1 / len(choices) for word, choices in zip(WORDS, _CHOICES, strict=True)}
STYLE = """
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5em,1fr));gap:1em}
.samples figure{margin:0}
.samples video{width:100%;aspect-ratio:1;background:#ddd;border-radius:4px}
.right{color:#06642a;font-weight:bold}
.wrong{color:#b00020;font-weight:bold;text-decoration:underline wavy}
small{font-weight:normal}
img{width:100%}
button{font:inherit;padding:.4em 1em}
"""
PAUSE = """<p><button type="button" onclick="for (const v of document.querySelectorAll('video'))
v.paused ? v.play() : v.pause()">Pause or play all</button></p>"""


class Word(NamedTuple):
    """A piece of a prompt. right: whether it was read back; None where nobody looks. shows: what was read instead."""

    text: str
    right: bool | None = None
    shows: str = ""


class Shown(NamedTuple):
    """A sample on the page. file: its video, relative to the page. words: its prompt."""

    file: str
    words: Sequence[Word]


def write(
    path: Path,
    report: Mapping[str, Any],
    samples: Mapping[str, Sequence[Shown]],
    pictures: Mapping[str, str],
    commands: Mapping[str, str],
) -> None:
    """Write one page, which works offline beside the files that it names.

    path: of the page. report: what report.json holds. samples: by the heading above them, the first ones first.
    pictures: file by title. commands: what to run next, by what it does.
    """
    match = report["prompt_match"]
    body = f"<style>{STYLE}</style>{page.heading('osjax demo', 1)}"
    body += page.paragraph(
        f"Prompts of combinations that training never showed. Every word was read back from the MP4 by image analysis: "
        f"green is right, red and underlined is wrong, with what is shown instead. All words at once are right in "
        f"{match['all']:.0%} of {match['samples']} samples."
    )
    body += PAUSE
    for title, shown in samples.items():
        body += page.heading(title) + f'<div class="samples">{"".join(map(_figure, shown))}</div>'
    body += page.heading("Figures") + page.table(("held-out prompts", "reached", "chance"), _words(report))
    body += page.table(("", "reached"), _others(report))
    for title, file in pictures.items():
        body += page.heading(title) + page.picture(file, title)
    stages = [
        (s["name"], s["steps"], f"{s['final_loss']:.4f}", f"{s['processor_seconds']:.0f} s") for s in report["stages"]
    ]
    body += page.heading("Stages") + page.table(("stage", "steps", "final loss", "processor time"), stages)
    body += page.heading("Go on") + "".join(
        f"<p>{html.escape(what)}: <code>{html.escape(command)}</code></p>" for what, command in commands.items()
    )
    page.write(path, "osjax demo", body)


def _words(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    match = report["prompt_match"]
    rows = [(word, f"{match[word]:.1%}", f"{CHANCE[word]:.0%}") for word in WORDS]
    everything = f"{math.prod(CHANCE.values()):.2%}"
    order = ("motion scores 1, 4 and 7 go farther in this order", f"{report['motion_order']:.1%}", f"{1 / 6:.0%}")
    return [*rows, ("all words at once", f"{match['all']:.1%}", everything), order]


def _others(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("shape stays from the first frame to the last", f"{report['prompt_match']['steady']:.1%}"),
        ("autoencoder, held-out clips", f"{report['ae_psnr_db']:.2f} dB"),
        ("its edges, of the original's steepness", f"{report['ae_edges']:.0%}"),
        ("first frame of image to video against the given one", f"{report['i2v_first_frame_psnr_db']:.2f} dB"),
        ("processor time in all", f"{report['processor_seconds'] / 60:.1f} min"),
        ("by the clock", f"{report['seconds'] / 60:.1f} min"),
        ("peak memory", f"{report['peak_rss_gb']:.2f} GB"),
    ]


def _figure(shown: Shown) -> str:
    prompt = "".join(word.text for word in shown.words)
    label = html.escape(f"video: {prompt}", quote=True)
    player = f'<video src="{html.escape(shown.file)}" aria-label="{label}" loop autoplay muted playsinline></video>'
    return f"<figure>{player}<figcaption>{''.join(map(_word, shown.words))}</figcaption></figure>"


def _word(word: Word) -> str:
    text = html.escape(word.text)
    if word.right is None:
        return text
    if word.right:
        return f'<span class="right">{text}</span>'
    return f'<span class="wrong">{text} <small>(shows {html.escape(word.shows)})</small></span>'
