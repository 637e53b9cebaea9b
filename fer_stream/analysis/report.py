"""One page that holds everything: no request leaves it, and it prints."""

from __future__ import annotations

from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

from fer_stream.analysis import plots

if TYPE_CHECKING:
    from fer_stream.analysis.summary import Summary

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>$title: apparent expressions</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1c; --soft: #5c5c5c; --line: #d8d8d8; --card: #f7f7f5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161616; --ink: #ececec; --soft: #a8a8a8; --line: #3a3a3a; --card: #202020; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .3rem; }
p { max-width: 44rem; margin: .3rem 0 .8rem; }
.lead, .note, footer { color: var(--soft); }
dl.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem;
  margin: 1.4rem 0; }
dl.figures div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
figure { margin: 0; overflow-x: auto; }
svg { width: 100%; height: auto; min-width: 30rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--soft); font-size: .85rem; }
td:nth-child(n+2), thead th:nth-child(n+2) { text-align: right; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; font-size: .85rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="lead">Apparent expressions of the faces in a recording of $duration, found by fer-stream $version.</p>
<dl class="figures">$figures</dl>
$sections
<h2>Events</h2>
<table><thead><tr><th scope="col">type</th><th scope="col">count</th></tr></thead><tbody>$events</tbody></table>
</main>
<footer>
<p>What a face shows is not what a person feels: the same expression has many causes, and many feelings show none
(Barrett et al. 2019, doi:10.1177/1529100619832930). A track is a face followed by its motion while it was in view, not
a person; the same person may have several. In the European Union, inferring emotions at work and in education is
forbidden, but for medical or safety reasons (AI Act, Article 5(1)(f)).</p>
<p>Model <code>$model</code>. $settings</p>
</footer>
</body>
</html>
""")

_SECTION = Template("""<h2>$title</h2>
<p class="note">$note</p>
<figure role="img" aria-label="$alt">$drawing</figure>
""")


def page(title: str, summary: Summary, about: dict[str, Any]) -> str:
    """Return the report on a recording as HTML; ``about`` has its ``version``, ``model`` and ``settings``."""
    told = summary.as_dict()
    leading = next((label for label in told["share"] if label != "uncertain"), "none")
    figures = {
        "frames": f"{summary.frames:,}",
        "tracks": f"{len(summary.stays):,}",
        "face-seconds": f"{sum(summary.seconds.values()):,.1f}",
        "label seen most": leading,
        "without a sure label": f"{told['share'].get('uncertain', 0):.0%}",
    }
    shares = ", ".join(f"{label} {share:.0%}" for label, share in told["share"].items()) or "no faces"
    sections = [
        ("Who showed what, when", f"A line a face, the {plots.MOST_TRACKS} longest; thin while no label was sure.",
         f"Timeline of {len(summary.stays)} tracks over {summary.duration:.0f} seconds", plots.timeline(summary)),
        ("Share of each label", "Of all the time that faces were in view, added up over faces.", shares,
         plots.shares(summary)),
        ("Valence over time", "P(positive) minus P(negative), the mean of the faces in view.",
         "Curve of the mean valence over time", plots.valence(summary)),
        ("Where nothing was sure", "Between which two labels a face was while none was sure enough to be told.",
         ", ".join(f"{pair} {seconds:.1f} s" for pair, seconds in told["uncertain_between"].items()) or "nowhere",
         plots.confusions(summary)),
    ]  # fmt: skip
    return _PAGE.substitute(
        title=escape(title),
        duration=_duration(summary.duration),
        version=escape(about["version"]),
        model=escape(about["model"]),
        settings=escape(", ".join(f"{key} {value}" for key, value in about["settings"].items())),
        figures="".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in figures.items()),
        events="".join(
            f'<tr><th scope="row">{escape(kind)}</th><td>{count:,}</td></tr>' for kind, count in told["events"].items()
        ),
        sections="".join(
            _SECTION.substitute(title=head, note=note, alt=escape(alt, quote=True), drawing=drawing)
            for head, note, alt, drawing in sections
        ),
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
