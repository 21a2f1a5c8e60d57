"""The one style of all pages, and what they are made of: tables, videos, pictures. A page needs no file but those it
names, and no text of a user's reaches it unescaped.
"""

import html
from collections.abc import Sequence
from pathlib import Path

from osjax import atomic

STYLE = """
body{font:15px sans-serif;margin:clamp(.8em,3vw,2em);max-width:75em;overflow-wrap:anywhere}
table{display:block;overflow-x:auto;border-collapse:collapse}
td,th{padding:.2em 1em;text-align:left}
td+td,th+th{text-align:right}
img,video{max-width:100%}
.grid td,.grid th{padding:.2em;text-align:left;vertical-align:top;min-width:7em}
.grid video,.grid img{width:192px;max-width:none}
pre{overflow-x:auto}
figure{display:inline-block;margin:.4em;vertical-align:top;max-width:100%}
"""
VIEWPORT = '<meta name="viewport" content="width=device-width,initial-scale=1">'  # phones show it at its size


def document(title: str, body: str) -> str:
    """One whole page. title: text. body: HTML, its texts escaped already."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8">{VIEWPORT}<title>{html.escape(title)}</title>'
    return f"{head}<style>{STYLE}</style><main>{body}</main>\n"


def write(path: Path, title: str, body: str) -> None:
    """Write one page, whole or not at all. path: of the file. title: text. body: HTML, its texts escaped already."""
    # Names of files may hold bytes that are no UTF-8.
    atomic.write_bytes(path, document(title, body).encode("utf-8", "backslashreplace"))


def heading(text: object, level: int = 2) -> str:
    """A heading. level: 1 for the page's own."""
    return f"<h{level}>{html.escape(str(text))}</h{level}>"


def paragraph(text: object) -> str:
    """A paragraph of text."""
    return f"<p>{html.escape(str(text))}</p>"


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table: the texts of its head, then those of its rows; all columns but the first are set to the right."""

    def row(cells: Sequence[object], tag: str) -> str:
        tags = [tag if str(cell) else "td" for cell in cells]  # a head without a text is none
        return "<tr>" + "".join(f"<{t}>{html.escape(str(x))}</{t}>" for t, x in zip(tags, cells, strict=True)) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def preformatted(text: str, title: str) -> str:
    """Text as it stands, which scrolls sideways, by keys too. title: what it is, for who does not see it."""
    return f'<pre tabindex="0" role="region" aria-label="{html.escape(title)}">{html.escape(text)}</pre>'


def grid(head: Sequence[object], rows: Sequence[tuple[object, Sequence[str]]]) -> str:
    """A table of pictures or videos. head: texts. rows: a text, then HTML for each further column."""
    top = "".join(f"<th>{html.escape(str(text))}</th>" for text in head)
    body = "".join(
        f"<tr><th>{html.escape(str(text))}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for text, cells in rows
    )
    return f'<table class="grid" tabindex="0"><tr>{top}</tr>{body}</table>'


def picture(source: str, title: str) -> str:
    """A picture. source: a file beside the page, or a data URL. title: what it shows."""
    return f'<img src="{html.escape(source)}" alt="{html.escape(title)}">'


def player(source: str, label: str) -> str:
    """A video alone, which plays when it is asked to. source: a file beside the page. label: what it shows."""
    return (
        f'<video src="{html.escape(source)}" aria-label="{html.escape(label)}" loop muted playsinline controls '
        'preload="metadata"></video>'
    )


def video(source: str, caption: str, width: int | None = 192) -> str:
    """A video with its caption. source: a file beside the page. width: in pixels; None: its own."""
    size = f' width="{width}"' if width else ""
    player = f'<video src="{html.escape(source)}"{size} loop autoplay muted controls></video>'
    style = f' style="width:{width}px"' if width else ""
    return f"<figure{style}>{player}<figcaption>{html.escape(caption)}</figcaption></figure>"
