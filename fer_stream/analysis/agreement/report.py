"""Formats the agreement: as CSV with all values, as tables for a paper, as an HTML page, and for the terminal."""

from __future__ import annotations

import csv
import io
import math
from html import escape
from typing import TYPE_CHECKING

from fer_stream.analysis.agreement import measures
from fer_stream.analysis.agreement.confusion import confusion
from fer_stream.analysis.page import CAUTION, Section, html

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fer_stream.analysis.agreement.compare import Agreement, Figure, Pair

COLUMNS = ("first", "second", "scope", "label", "measure", "value", "low", "high", "films", "seconds")

METHOD = (
    "Labels are compared at moments {step:g} s apart. All time: time in which a rater gives no label is a label of "
    "its own; labelled time: only moments at which both give a label. Cohen's kappa (Cohen 1960), Krippendorff's "
    "alpha for nominal data (Krippendorff 2011), Fleiss' kappa (Fleiss 1971); F1, precision and recall judge the "
    "first rater by the second; macro F1 is the mean over labels. A span of the first rater matches one of the second "
    "with the same label if their intersection over union is at least {overlap:g} (Li et al. 2020); its onset error "
    "is the first's start minus the second's, as the median with its quartiles. Other intervals: {level:.0%}, "
    "percentile bootstrap over whole films ({resamples} resamples)."
)

NOTE = (
    "Time without a label counts as a label of its own; “labelled” is only the time in which both give one. In "
    "brackets: 95% intervals over films, and the quartiles of the onset error."
)
"""A short explanation of the page's first table; `METHOD` has the details."""

FEW = 10
"""Films below which intervals over films are known to be too narrow."""


def method(agreement: Agreement) -> str:
    """Return the sentences on how the values were computed."""
    text = METHOD.format(
        step=agreement.step, overlap=agreement.overlap, level=measures.LEVEL, resamples=measures.RESAMPLES
    )
    count = len(agreement.material.films)
    if count == 1:
        return f"{text} With one film there are no intervals."
    if count < FEW:
        return f"{text} With {count} films they are too narrow: take them as a lower bound of the uncertainty."
    return text


def table(agreement: Agreement) -> str:
    """Return all values as CSV, a row each (`COLUMNS`); what is undefined is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(agreement))
    return file.getvalue()


def _rows(agreement: Agreement) -> Iterator[list[str]]:
    for pair in agreement.pairs:
        for scope in (pair.all_time, pair.labelled):
            where = [pair.first, pair.second, scope.name]
            about = [str(len(pair.films)), _number(scope.seconds)]
            overall = {
                "agreement": scope.figure(measures.observed),
                "kappa": scope.figure(measures.cohen),
                "macro_f1": scope.macro_f1(),
            }
            for name, figure in overall.items():
                yield [*where, "", name, *_cells(figure), *about]
            for label in scope.labels:
                for name, figure in zip(("precision", "recall", "f1"), scope.per_label(label), strict=True):
                    yield [*where, label, name, *_cells(figure), *about]
            summed = scope.confusion.sum(0)
            for row, label in enumerate(scope.labels):
                for column, other in enumerate(scope.labels):
                    value = _number(float(summed[row, column]))
                    yield [*where, label, f"seconds while {pair.second} says {other}", value, "", "", *about]
        where = [pair.first, pair.second, "events"]
        about = [str(len(pair.films)), _number(pair.all_time.seconds)]
        for each in (None, *pair.events.labels):
            for name, figure in zip(("precision", "recall", "f1"), pair.events.figures(each), strict=True):
                yield [*where, each or "", name, *_cells(figure), *about]
            low, middle, high = pair.events.onset(each)
            yield [*where, each or "", "onset_error_s", _number(middle), "", "", *about]
            yield [*where, each or "", "onset_error_lower_quartile_s", _number(low), "", "", *about]
            yield [*where, each or "", "onset_error_upper_quartile_s", _number(high), "", "", *about]
    films = str(len(agreement.material.films))
    for together in agreement.together:
        name = "labelled time" if together.labelled else "all time"
        yield ["all", "all", name, "", "alpha", *_cells(together.alpha), films, ""]
        yield ["all", "all", name, "", "fleiss_kappa", _number(together.fleiss), "", "", films, ""]


def _cells(figure: Figure) -> list[str]:
    return [_number(value) for value in (figure.value, *figure.interval)]


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


HEAD = (
    "raters",
    "films",
    "min",
    "agreement",
    "kappa",
    "kappa, labelled",
    "macro F1, labelled",
    "event F1",
    "onset error in s",
)


def _summary(pair: Pair) -> tuple[str, ...]:
    """Return a pair's row of the table for a paper."""
    low, middle, high = map(_fixed, pair.events.onset(None))
    onset = "-" if middle == "-" else f"{middle} [{low}, {high}]"
    return (
        f"{pair.first} / {pair.second}",
        str(len(pair.films)),
        f"{pair.all_time.seconds / 60:.1f}",
        shown(pair.all_time.figure(measures.observed)),
        shown(pair.all_time.figure(measures.cohen)),
        shown(pair.labelled.figure(measures.cohen)),
        shown(pair.labelled.macro_f1()),
        shown(pair.events.figures(None)[2]),
        onset,
    )


def _label_head(pair: Pair) -> tuple[str, ...]:
    measured = ("precision", "recall", "F1", "event F1", "onset error in s")
    return ("label", f"{pair.first}, s", f"{pair.second}, s", *measured)


def _by_label(pair: Pair) -> list[tuple[str, ...]]:
    found = []
    summed = pair.all_time.confusion.sum(0)
    for at, label in enumerate(pair.events.labels, 1):
        precision, recall, f1 = pair.all_time.per_label(label)
        onset = _fixed(pair.events.onset(label)[1])
        seconds = (f"{float(summed[at].sum()):.1f}", f"{float(summed[:, at].sum()):.1f}")
        event = pair.events.figures(label)[2]
        found.append((label, *seconds, *map(shown, (precision, recall, f1, event)), onset))
    return found


def shown(figure: Figure) -> str:
    """Return a value with its interval, such as ``0.71 [0.60, 0.80]``; ``-`` if it is undefined."""
    value, (low, high) = _fixed(figure.value), map(_fixed, figure.interval)
    return value if low == "-" else f"{value} [{low}, {high}]"


def _fixed(value: float, sign: str = "") -> str:
    """Return a value with two decimal places, ``-`` if it is undefined; a zero has no minus sign."""
    return f"{round(value, 2) + 0.0:{sign}.2f}" if math.isfinite(value) else "-"


def _together(agreement: Agreement) -> list[tuple[str, ...]]:
    return [
        (
            "labelled time" if each.labelled else "all time",
            shown(each.alpha),
            _fixed(each.fleiss),
        )
        for each in agreement.together
    ]


TOGETHER_HEAD = ("all raters", "Krippendorff's alpha", "Fleiss' kappa")


def _tables(agreement: Agreement) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    yield "Agreement by pairs of raters", HEAD, [_summary(pair) for pair in agreement.pairs]
    yield "Agreement of all raters", TOGETHER_HEAD, _together(agreement)
    for pair in agreement.pairs:
        yield f"{pair.first} judged by {pair.second}, by label", _label_head(pair), _by_label(pair)


def markdown(agreement: Agreement) -> str:
    """Return the tables for a paper as Markdown."""
    parts = []
    for title, head, rows in _tables(agreement):
        lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
        cells = (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
        )
        parts.append(f"**{title}**\n\n" + "\n".join(cells) + "\n")
    return "\n".join([*parts, method(agreement)]) + "\n"


_TEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "\n": " ",
})  # fmt: skip


def latex(agreement: Agreement) -> str:
    """Return the tables for a paper as LaTeX, for the package booktabs."""
    parts = []
    for title, head, rows in _tables(agreement):
        lines = [" & ".join(cell.translate(_TEX) for cell in line) + r" \\" for line in (head, *rows)]
        parts.append(
            "\\begin{table}\n\\caption{" + title.translate(_TEX) + "}\n"
            "\\begin{tabular}{l" + "r" * (len(head) - 1) + "}\n\\toprule\n" + lines[0] + "\n\\midrule\n"
            + "\n".join(lines[1:]) + "\n\\bottomrule\n\\end{tabular}\n\\end{table}\n"
        )  # fmt: skip
    return "\n".join([*parts, "% " + method(agreement)]) + "\n"


def page(agreement: Agreement, title: str, further: Iterable[Section] = ()) -> str:
    """Return the report as one HTML page; ``further`` sections follow those on agreement."""
    first = agreement.pairs[0]
    figures = {
        "films": f"{len(agreement.material.films):,}",
        "minutes compared": f"{first.all_time.seconds / 60:,.1f}",
    }
    measured = {
        f"kappa with {first.second}": first.all_time.figure(measures.cohen),
        "alpha of all": agreement.together[0].alpha,
    }
    for name, figure in measured.items():
        low, high = map(_fixed, figure.interval)
        figures[name if low == "-" else f"{name}, {low} to\u00a0{high}"] = _fixed(figure.value)
    sections = [
        Section(title, NOTE if at == 0 else "", tuple(head), [_unbroken(row) for row in rows])
        for at, (title, head, rows) in enumerate(list(_tables(agreement))[:2])
    ]
    for pair in agreement.pairs:
        names = f"{pair.first} judged by {pair.second}"
        rows_by_label = [_unbroken(row) for row in _by_label(pair)]
        sections.append(Section(f"{names}, by label", "", _label_head(pair), rows_by_label))
        for scope in (pair.all_time, pair.labelled):
            summed = scope.confusion.sum(0)
            rows: list[tuple[str | float | None, ...]] = [
                (other, *(round(float(summed[row, column]), 1) for row in range(len(scope.labels))))
                for column, other in enumerate(scope.labels)
            ]
            note = (
                f"Rows: labels of {pair.second}. Cells: labels of {pair.first} at the same time, as shares of the row."
            )
            drawing = confusion(scope, pair.first, pair.second) if scope.seconds else ""
            alt = f"Confusion of {pair.first} and {pair.second} over {scope.seconds:.1f} s, as the table below"
            title_of = f"Confusion with {pair.second}, {scope.name}"
            sections.append(Section(title_of, note, (f"{pair.second}, in s", *scope.labels), rows, alt, drawing))
    sections += further
    remarks = agreement.material.remarks
    if remarks:
        sections.append(Section("Remarks", "", ("what",), [(remark,) for remark in remarks]))
    raters = agreement.material.raters
    lead = f"How far {', '.join(raters[:-1])} and {raters[-1]} agree on the expressions in {_films(agreement)}."
    made = f"command agree. {method(agreement).removesuffix('.')}"
    return html(title, "agreement", lead, figures, sections, CAUTION, escape(made))


def _unbroken(row: Iterable[str]) -> tuple[str, ...]:
    """Return cells in which no line ends within an interval."""
    return tuple(cell.replace(", ", ",\u00a0") if cell.endswith("]") else cell for cell in row)


def terminal(agreement: Agreement) -> str:
    """Return the most important values as text, with the remarks on what was left out."""
    lines = [f"{_films(agreement)}: {', '.join(film.name for film in agreement.material.films[:6])}"]
    for pair in agreement.pairs:
        whole, both = pair.all_time, pair.labelled
        kappa, of_labelled = whole.figure(measures.cohen), both.figure(measures.cohen)
        lines.append(f"{pair.first} and {pair.second}, {_count(len(pair.films))}, {whole.seconds / 60:.1f} min")
        lines.append(f"  agreement        {shown(whole.figure(measures.observed))}")
        lines.append(f"  Cohen's kappa    {_kappa(kappa, pair, whole.seconds)}")
        lines.append(f"  of labelled time {_kappa(of_labelled, pair, both.seconds)} ({both.seconds / 60:.1f} min)")
        lines.append(f"  macro F1         {shown(both.macro_f1())}")
        lines.append(f"  event F1         {shown(pair.events.figures(None)[2])}")
        low, middle, high = (_fixed(value, "+") for value in pair.events.onset(None))
        if middle != "-":
            lines.append(f"  onset error      {middle} s (quartiles {low}, {high})")
    for each in agreement.together:
        name = "of labelled time" if each.labelled else "of all time"
        lines.append(f"alpha {name:17}{shown(each.alpha)}")
    return "\n".join([*lines, *(f"note: {remark}" for remark in agreement.material.remarks)]) + "\n"


def _kappa(figure: Figure, pair: Pair, seconds: float) -> str:
    if figure.known:
        return shown(figure)
    if not seconds:
        return f"undefined: at no time do both {pair.first} and {pair.second} give a label"
    return "undefined: both raters use one label only, so chance would agree as often"


def _films(agreement: Agreement) -> str:
    return _count(len(agreement.material.films))


def _count(films: int) -> str:
    return f"{films} film{'s' if films > 1 else ''}"
