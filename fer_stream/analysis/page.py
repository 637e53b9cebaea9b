"""The skeleton of the HTML reports: one page without external requests."""

from __future__ import annotations

from html import escape
from string import Template
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from fer_stream.analysis.plots import INK
from fer_stream.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST_ROWS = 400
"""Rows shown of a table; the files beside a page hold all data."""

CAUTION = """An expression is not a feeling: the same expression has many causes, and many feelings cause no expression
(Barrett et al. 2019, doi:10.1177/1529100619832930). The model is often wrong; its model card gives the error rates. """

TRACKS = """A track is a face followed by its motion while it is in view, not a person; one person may have several
tracks. """

LAW = """In the European Union, inferring emotions at work and in education is prohibited, except for medical or safety
reasons (AI Act, Article 5(1)(f))."""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>$title: $kind</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1c; --soft: #5a5a5a; --line: #d8d8d8; --card: #f7f7f5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161616; --ink: #ececec; --soft: #ababab; --line: #3a3a3a; --card: #202020; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 66rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .2rem; }
p { max-width: 44rem; margin: .3rem 0 .8rem; }
.lead, .note, footer { color: var(--soft); }
.broken { border-left: .3rem solid #d55e00; padding: .2rem .8rem; }
dl.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.4rem 0; }
dl.figures div { display: flex; flex-direction: column; justify-content: space-between; padding: .65rem .9rem;
  background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: 0; color: var(--soft); }
figure svg { display: block; width: 100%; height: auto; min-width: 44rem; }
details { margin: .4rem 0 0; }
summary { color: var(--soft); font-size: .9rem; cursor: pointer; width: fit-content; border-radius: .25rem; }
summary:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
/* Wide content scrolls; a shadow at the right edge shows that there is more. */
.wide { overflow-x: auto; background:
  linear-gradient(to left, var(--paper) 40%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--line), transparent) right / 1.2rem 100% no-repeat scroll; }
.wide:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
a { color: inherit; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--soft); font-size: .85rem; }
td { white-space: nowrap; }
.number { text-align: right; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; font-size: .85rem; }
code { font-size: .95em; overflow-wrap: anywhere; }
@media print { details { display: none; } figure { break-inside: avoid; } figure svg { min-width: 0; } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="lead">$lead</p>
$warnings<dl class="figures">$figures</dl>
$sections
$begin$further$end
</main>
<footer>
<p>$caution</p>
<p>fer-stream $version, $made.</p>
</footer>
</body>
</html>
""")

_DRAWING = """<figure class="wide"><div role="img" aria-label="{alt}">{drawing}</div></figure>
"""


_BEGIN, _END = "<!--further-->", "<!--/further-->"
"""Where `with_further` puts its sections."""


class Link(NamedTuple):
    """A cell with a link to a file; ``address`` is its path, relative to the page."""

    text: str
    address: str


Cell = str | float | Link | None


class Section(NamedTuple):
    """A section of a page: a drawing (optional), an SVG, and the same data as a table."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    alt: str = ""
    drawing: str = ""
    listed: bool = False
    """Whether the table is shown below the drawing at once, and not only when a reader opens it."""


def html(
    title: str,
    kind: str,
    lead: str,
    figures: Mapping[str, str],
    sections: Iterable[Section],
    caution: str,
    made: str,
    warnings: Iterable[str] = (),
    further: Iterable[Section] = (),
) -> str:
    """Return a page.

    Args:
        title: its heading.
        kind: the kind of report, which follows the title in the browser's tab.
        lead: one sentence below the heading, as text.
        figures: the most important numbers, by name.
        sections: the rest.
        caution: the limits of the results, as text.
        made: how the results were made, as HTML; follows the version.
        warnings: problems of the results, as text.
        further: sections after the others, which `with_further` can replace.
    """
    return _PAGE.substitute(
        title=escape(title),
        kind=escape(kind),
        lead=escape(lead),
        warnings="".join(f'<p class="broken">{escape(warning)}</p>\n' for warning in warnings),
        version=escape(__version__),
        made=made,
        caution=escape(caution, quote=False),
        figures="".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in figures.items()),
        sections="".join(map(_section, sections)),
        begin=_BEGIN,
        further="".join(map(_section, further)),
        end=_END,
    )


def with_further(text: str, sections: Iterable[Section]) -> str:
    """Return a page whose further sections are replaced by these, such as those of trials that were added later."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.rpartition(_END)
    return before + begin + "".join(map(_section, sections)) + end + after


def _section(section: Section) -> str:
    title, table = escape(section.title), _table(section)
    text = f"<h2>{title}</h2>\n" + (f'<p class="note">{escape(section.note)}</p>\n' if section.note else "")
    if not section.drawing:
        return text + table
    # The page's text colour has more contrast than the drawing's grey on either background.
    drawing = section.drawing.replace(INK, "currentColor")
    text += _DRAWING.format(alt=escape(section.alt, quote=True), drawing=drawing)
    shown = " open" if section.listed else ""
    return text + f'<details{shown}><summary aria-label="{title}, as a table">as a table</summary>{table}</details>\n'


def _table(section: Section) -> str:
    if not section.rows:
        return "<p>No data.</p>\n"

    def cell(value: Cell, column: int) -> str:
        if isinstance(value, Link):
            text = f'<a href="{escape(quote(value.address))}">{escape(value.text)}</a>'
        else:
            text = f"{value:,}" if isinstance(value, int | float) else escape(value or "")
        if column == 0:
            return f'<th scope="row">{text}</th>'
        return f'<td class="number">{text}</td>' if isinstance(value, int | float) else f"<td>{text}</td>"

    numbers = [isinstance(value, int | float) and i > 0 for i, value in enumerate(section.rows[0])]
    head = "".join(
        f'<th scope="col"{" class=number" if number else ""}>{escape(text)}</th>'
        for text, number in zip(section.head, numbers, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(cell(value, column) for column, value in enumerate(row)) + "</tr>\n"
        for row in section.rows[:MOST_ROWS]
    )
    more = f"<p>The first {MOST_ROWS} of {len(section.rows):,}.</p>" if len(section.rows) > MOST_ROWS else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
    return f'<div class="wide">{table}</div>{more}\n'
