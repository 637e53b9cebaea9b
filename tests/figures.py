"""Computes every figure of a report again, from the tables beside it, by pandas and plain Python.

Each ``check_...`` takes the folder of a report and the page's text, and raises `AssertionError` if a number is wrong.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas
import pytest
from reported import Part, Report, number, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Trial = tuple[str, float, float]

GOOD, BAD = {"happy", "surprise", "positive"}, {"negative", "sad", "angry", "disgust", "fear", "contempt"}
"""Labels by valence, as in docs/how-to/labels.md; neutral is neither."""

FILM = ["Labels over time", "Share of each label", "Valence over time", "Time without a sure label", "Events"]
"""The sections of the report on a film without trials, zones and lines."""

ALL = "all films"


@cache
def table(path: Path) -> pandas.DataFrame:
    """Return a table that is not to be changed."""
    return pandas.read_csv(path, keep_default_na=False, na_values=[""])


@cache
def summary(folder: Path) -> dict[str, Any]:
    """Return the summary in a folder."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def time(events: pandas.DataFrame, begin: float = 0.0, end: float = 1e9) -> tuple[float, dict[str, float], int]:
    """Return the seconds that faces were in view, those of each label and of none, and how many faces there were."""
    labels: defaultdict[str, float] = defaultdict(float)
    in_view, faces = 0.0, 0
    for row in events.itertuples():
        seconds = min(row.end, end) - max(row.start, begin)
        if row.type == "face.left":
            in_view += max(seconds, 0)
            faces += seconds > 0
        elif row.type in ("emotion.ended", "valence.ended") and seconds > 0:
            labels[row.label] += seconds
    return in_view, {**labels, "uncertain": in_view - sum(labels.values())}, faces


def check_film(
    folder: Path,
    page: str,
    trials: Sequence[Trial] = (),
    *,
    places: bool = False,
    labels: Sequence[str] = (),
    measures: Sequence[str] = (),
) -> None:
    """Check the report on one film; ``labels`` are those of its events, by default the model's."""
    report = Report(page)
    faces, events, frames = (table(folder / f"{name}.csv") for name in ("faces", "events", "frames"))
    in_view, seconds, _ = time(events)
    last = frames["time"].iloc[-1]
    assert in_view > 0.5
    assert report.title == summary(folder)["source"]
    assert report.warnings == []
    assert numbers(report.lead) == _spoken(last)
    sections = [*FILM[:3], *(["Measures over time"] if measures else []), *FILM[3:]]
    assert list(report.parts) == [*sections, *(["Trials"] if trials else []), *(["Zones", "Lines"] if places else [])]
    assert not any(numbers(part.note) for part in report.parts.values())
    certain = sorted((part, label) for label, part in seconds.items() if label != "uncertain")
    assert report.figures == {
        "frames": f"{len(frames):,}",
        "tracks": f"{(events['type'] == 'face.left').sum():,}",
        "face-seconds": f"{in_view:,.1f}",
        "most frequent label": certain[-1][1] if certain else "none",
        "without a sure label": report.figures["without a sure label"],
    }
    assert number(report.figures["without a sure label"]) == pytest.approx(
        100 * seconds["uncertain"] / in_view, abs=0.6
    )
    _timeline(report.parts["Labels over time"], events, last)
    _shares(report.parts["Share of each label"], seconds, in_view)
    scored = [name.removeprefix("scored_") for name in faces.columns if name.startswith("scored_")]
    names = labels or [name for name in scored if name not in measures]
    seen = faces[faces["found"] & ~faces["provisional"] & faces[names[0]].notna()]
    if measures:
        _measured(report.parts["Measures over time"], seen, measures, last)
    _valence(report.parts["Valence over time"], seen, names, last)
    _unsure(report.parts["Time without a sure label"], seen, names, frames)
    counts = events["type"].value_counts().to_dict()
    assert {kind: int(number(count)) for kind, count in report.parts["Events"].table[1:]} == counts
    if trials:
        _trials(report.parts["Trials"], {"": events}, trials)
    if places:
        _places(report, {"": events}, trials)
    about = summary(folder)
    settings = about["settings"]
    assert report.made.split() == (
        f"fer-stream {about['version']}, model {about['model']}, labels: {settings['labels']}, "
        f"smallest face {settings['detector']['min_face']} pixels, "
        f"full scan every {settings['search']['scan_interval']:g} s."
    ).split()  # fmt: skip


def _spoken(seconds: float) -> list[float]:
    """Return the numbers in a duration that is told in words."""
    minutes, rest = divmod(round(seconds), 60)
    return [minutes, rest] if minutes else [pytest.approx(seconds, abs=0.051)]


def _timeline(part: Part, events: pandas.DataFrame, last: float) -> None:
    ended = events[events["type"].isin(["emotion.ended", "valence.ended"])]
    left = events[events["type"] == "face.left"]
    told = [(str(int(row.track)), row.label, row.start, row.end) for row in ended.itertuples()]
    bars = [*told, *((str(int(row.track)), "", row.start, row.end) for row in left.itertuples())]
    told += [
        (track, "uncertain", a, b) for track, _, a, b in bars[len(told) :] if track not in {one[0] for one in told}
    ]
    assert sorted((track, label, float(a), float(b)) for track, label, a, b in part.table[1:]) == sorted(
        (track, label, pytest.approx(a, abs=0.0051), pytest.approx(b, abs=0.0051)) for track, label, a, b in told
    )
    assert numbers(part.alt) == [len(left), *_spoken(last)]
    drawing = part.drawing()
    drawn = drawing.bars()
    assert len(drawn) == len(bars)
    for bar, (track, label, begin, end) in zip(drawn, sorted(bars), strict=True):
        shown = max(end - begin, last / 500) if label else end - begin
        assert bar[:2] == (track, label)
        assert bar[2:] == pytest.approx((begin, begin + shown), abs=0.002 * last)
    for text in drawing.inside():
        here = {
            bar.label for bar in drawn if bar.row == drawing.row(text) and bar.begin <= drawing.value(text.x) <= bar.end
        }
        assert text.text in here


def _shares(part: Part, labels: Mapping[str, float], in_view: float) -> None:
    expected = {label: 100 * seconds / in_view for label, seconds in labels.items() if seconds > 1e-6}
    assert {row[0]: number(row[-1]) for row in part.table[1:]} == pytest.approx(expected, abs=0.051)
    assert numbers(part.alt) == [pytest.approx(expected[row[0]], abs=0.051) for row in part.table[1:]]
    _plain_bars(part, expected, " %")


def _plain_bars(part: Part, expected: Mapping[str, float], unit: str) -> None:
    """Check bars of one colour each, with their values beside them."""
    drawing = part.drawing()
    assert {bar.row: bar.end - bar.begin for bar in drawing.bars()} == pytest.approx(expected, abs=0.01)
    told = {drawing.row(text): number(text.text.removesuffix(unit)) for text in drawing.inside()}
    assert told == pytest.approx(expected, abs=0.051)


def _valence(part: Part, seen: pandas.DataFrame, names: Sequence[str], last: float) -> None:
    signs = [(name in GOOD) - (name in BAD) for name in names]
    signed = sum(sign * seen[name] for sign, name in zip(signs, names, strict=True))
    assert part.table[0] == ["second", "valence, -1 to 1"]
    curve = signed.groupby((seen["time"] / 0.5).astype(int)).mean()
    points = [(min(0.5 * (step + 0.5), last), mean) for step, mean in curve.items()]
    assert [float(at) for at, _ in part.table[1:]] == pytest.approx([at for at, _ in points], abs=1e-5)
    assert [float(value) for _, value in part.table[1:]] == pytest.approx([value for _, value in points], abs=0.006)
    values = [value for _, value in points]
    assert numbers(part.alt) == pytest.approx([min(values), max(values), sum(values) / len(values)], abs=0.006)
    curves = part.drawing().curves({"negative": -1, "neutral": 0, "positive": 1})
    drawn = [value for curve in curves for point in curve for value in point]
    assert drawn == pytest.approx([value for point in points for value in point], abs=0.01)


def _measured(part: Part, seen: pandas.DataFrame, measures: Sequence[str], last: float) -> None:
    steps = seen.assign(step=(seen["time"] / 0.5).astype(int)).groupby(["track", "step"])[list(measures)].mean()
    expected = []
    for track in sorted(seen["track"].unique()):
        for name in measures:
            curve = steps.loc[track][name]
            expected.append([str(int(track)), name, curve.mean(), curve.min(), curve.max()])
    assert part.table[0] == ["track", "measure", "mean", "lowest", "highest"]
    assert [[*row[:2], *map(float, row[2:])] for row in part.table[1:]] == [
        [track, name, *(pytest.approx(value, abs=0.0051) for value in values)] for track, name, *values in expected
    ]
    assert numbers(part.alt) == []
    for place, name in enumerate(measures):
        drawing = part.drawing(place)
        assert drawing.count == len(measures)
        assert name in {text.text for text in drawing.texts}
        curves = dict(zip(drawing.at_ends(), drawing.curves(), strict=True))
        assert set(curves) == {str(int(track)) for track in seen["track"].unique()}
        for track, points in curves.items():
            values = steps.loc[float(track)][name]
            told = [(min(0.5 * (step + 0.5), last), value) for step, value in values.items()]
            assert [at for point in points for at in point] == pytest.approx(
                [at for one in told for at in one], abs=0.01
            )


def _unsure(part: Part, seen: pandas.DataFrame, names: Sequence[str], frames: pandas.DataFrame) -> None:
    steps = dict(zip(frames["frame"], frames["time"].diff().fillna(0.0), strict=True))
    between: defaultdict[str, float] = defaultdict(float)
    for row in seen[seen["label"].isna()].to_dict("records"):
        first, second = sorted(sorted(names, key=lambda name: -row[name])[:2])
        between[f"{first} or {second}"] += steps[row["frame"]]
    expected = {pair: seconds for pair, seconds in between.items() if seconds}
    told = {pair: number(seconds) for pair, seconds in part.table[1:]}
    assert told == pytest.approx(expected, abs=0.051)
    assert numbers(part.alt) == [pytest.approx(expected[pair], abs=0.051) for pair, _ in part.table[1:]]
    _plain_bars(part, {pair: expected[pair] for pair, _ in part.table[1:9]}, " s")


def check_study(folder: Path, page: str, trials: Sequence[Trial] = (), coder: Path | None = None) -> None:
    """Check the report on several films, whose folders are beside it."""
    report = Report(page)
    events, frames = table(folder / "events.csv"), table(folder / "frames.csv")
    films = list(frames["film"].unique())
    own = {film: events[events["film"] == film] for film in films}
    times = {**{film: time(own[film]) for film in films}, ALL: time(events)}
    seconds = {film: frames[frames["film"] == film]["time"].iloc[-1] for film in films}
    shown = {row.pop("film"): row for row in report.parts["Films"].rows()}
    places = (folder / "zones.csv").is_file()
    assert report.title == folder.name
    assert report.warnings == []
    assert numbers(report.lead) == []
    assert list(report.parts) == [
        "Films", *(["Trials"] if trials else []), *(["Zones", "Lines"] if places else []),
        *(["Agreement with coders", "Agreement of all raters"] if coder else []),
    ]  # fmt: skip
    assert not any(numbers(part.note) for title, part in report.parts.items() if title != "Agreement with coders")
    assert list(shown) == [*films, ALL]
    for film, row in shown.items():
        in_view, labels, _ = times[film]
        here = own.get(film, events)
        assert number(row.pop("seconds")) == pytest.approx(seconds.get(film, sum(seconds.values())), abs=0.051)
        assert number(row.pop("frames")) == (len(frames) if film == ALL else (frames["film"] == film).sum())
        assert number(row.pop("tracks")) == (here["type"] == "face.left").sum()
        assert number(row.pop("face-seconds")) == pytest.approx(in_view, abs=0.051)
        _same_shares(row, in_view, labels)
    in_view, labels, _ = times[ALL]
    certain = {label: part for label, part in labels.items() if label != "uncertain"}
    assert report.figures == {
        "films": str(len(films)),
        "minutes": f"{sum(seconds.values()) / 60:,.1f}",
        "tracks": f"{(events['type'] == 'face.left').sum():,}",
        "face-seconds": f"{in_view:,.1f}",
        "most frequent label": max(certain, key=certain.__getitem__),
        "without a sure label": f"{labels['uncertain'] / in_view:.0%}",
    }
    part = report.parts["Films"]
    _stacked(part, {film: times[film][:2] for film in films})
    assert part.links == [f"{film}/report.html" for film in films]
    assert all((folder / link).is_file() for link in part.links)
    if trials:
        _trials(report.parts["Trials"], own, trials)
    if places:
        _places(report, own, trials)
    if coder:
        _agreement(report, folder, own, table(coder))
    about = [summary(folder / film) for film in films]
    models = ", ".join(dict.fromkeys(each["model"] for each in about))
    assert report.made.split() == f"fer-stream {about[0]['version']}, model {models}.".split()


def _same_shares(row: Mapping[str, str], in_view: float, labels: Mapping[str, float]) -> None:
    """Check cells that are all shares."""
    assert all(head.endswith(" %") for head in row)
    shown = {head.removesuffix(" %"): number(cell) for head, cell in row.items() if cell != "-"}
    expected = {label: 100 * seconds / in_view for label, seconds in labels.items()} if in_view else {}
    assert bool(shown) == bool(in_view)
    for label in shown | expected:
        assert shown.get(label, 0) == pytest.approx(expected.get(label, 0), abs=0.11), label


def _stacked(part: Part, expected: Mapping[str, tuple[float, Mapping[str, float]]]) -> None:
    """Check bars that show shares after each other, from the seconds in view and of each label of each row."""
    shares = {
        row: {label: 100 * seconds / whole for label, seconds in labels.items() if seconds > 1e-3}
        for row, (whole, labels) in expected.items() if whole
    }  # fmt: skip
    told = {}
    for entry in part.alt.split("; "):
        row, _, rest = entry.partition(": ")
        pairs = [pair.rpartition(" ") for pair in rest.split(", ")]
        told[row] = {label: number(share) for label, _, share in pairs if share.endswith("%") and number(share)}
    drawing = part.drawing()
    assert list(drawing.rows) == list(expected) == list(told)
    drawn: defaultdict[str, dict[str, float]] = defaultdict(dict)
    ends: defaultdict[str, float] = defaultdict(float)
    for bar in sorted(drawing.bars(), key=lambda bar: bar.begin):
        assert bar.begin == pytest.approx(ends[bar.row], abs=0.01), "one after the other"
        ends[bar.row] = bar.end
        if bar.end - bar.begin > 0.01:
            drawn[bar.row][bar.label] = bar.end - bar.begin
    for row in expected:
        here = {label: share for label, share in shares.get(row, {}).items() if share > 0.05}
        assert {label: told[row].get(label, 0) for label in here | told[row]} == pytest.approx(
            {label: shares[row].get(label, 0) for label in here | told[row]}, abs=0.11
        )
        assert {label: drawn[row].get(label, 0) for label in here | drawn[row]} == pytest.approx(
            {label: shares[row].get(label, 0) for label in here | drawn[row]}, abs=0.06
        )
    for text in drawing.inside():
        label, share = text.text.removesuffix(" %").rsplit(" ", 1)
        assert number(share) == pytest.approx(drawn[drawing.row(text)][label], abs=0.51)


def _trials(part: Part, events: Mapping[str, pandas.DataFrame], trials: Sequence[Trial]) -> None:
    """Check the trials of films; of one film without a name in its own report."""
    expected: dict[tuple[str, str], tuple[float, Mapping[str, float]]] = {}
    faces = []
    whole = pandas.concat(list(events.values()))
    for film, own in [*events.items(), *([(ALL, whole)] if "" not in events else [])]:
        for name in dict.fromkeys(name for name, _, _ in trials):
            parts = [time(own, begin, end) for trial, begin, end in trials if trial == name]
            labels: defaultdict[str, float] = defaultdict(float)
            for _, found, _ in parts:
                for label, seconds in found.items():
                    labels[label] += seconds
            expected[film, name] = sum(each[0] for each in parts), labels
            faces.append(sum(each[2] for each in parts))
    rows = part.rows()
    assert [(row.pop("film", ""), row.pop("trial")) for row in rows] == list(expected)
    for row, (in_view, labels), count in zip(rows, expected.values(), faces, strict=True):
        assert number(row.pop("faces")) == count
        assert number(row.pop("seconds in view")) == pytest.approx(in_view, abs=0.06)
        _same_shares(row, in_view, labels)
    last = ALL if "" not in events else ""
    _stacked(part, {trial: found for (film, trial), found in expected.items() if film == last})


def _places(report: Report, events: Mapping[str, pandas.DataFrame], trials: Sequence[Trial]) -> None:
    """Check zones and lines; their cells have trials, and films if there are several."""
    zones: dict[str, tuple[float, Mapping[str, float]]] = {}
    zoned = {film: own for film, own in events.items() if (own["type"] == "zone.left").any()}
    assert zoned
    for row in report.parts["Zones"].rows():
        film, trial, zone = row.pop("film", ""), row.pop("trial"), row.pop("zone")
        assert (film in zoned or film == ALL) and bool(trial) == (film != ALL)  # noqa: PT018
        in_view, faces, count, labels = 0.0, 0, 0, defaultdict[str, float](float)
        for own in zoned.values() if film == ALL else [zoned[film]]:
            spans = own[own["type"] == "emotion.ended"]
            visits = own[(own["type"] == "zone.left") & (own["zone"] == zone)]
            for _, begin, end in (each for each in trials if not trial or each[0] == trial):
                there = set()
                for visit in visits.itertuples():
                    first, last = max(visit.start, begin), min(visit.end, end)
                    if last <= first:
                        continue
                    in_view += last - first
                    count += 1
                    there.add(visit.track)
                    for span in spans[spans["track"] == visit.track].itertuples():
                        labels[span.label] += max(min(span.end, last) - max(span.start, first), 0)
                faces += len(there)
        labels["uncertain"] = in_view - sum(labels.values())
        assert (number(row.pop("faces")), number(row.pop("visits"))) == (faces, count), row
        assert number(row.pop("seconds in view")) == pytest.approx(in_view, abs=0.06)
        _same_shares(row, in_view, labels)
        seconds, before = zones.get(zone, (0.0, {}))
        if film in ("", ALL):
            zones[zone] = seconds + in_view, {label: before.get(label, 0) + labels[label] for label in before | labels}
    _stacked(report.parts["Zones"], zones)
    for row in report.parts["Lines"].rows():
        found = events.values() if row.get("film") == ALL else [events[row.get("film", "")]]
        parts = [
            own[
                (own["type"] == "line.crossed") & (own["line"] == row["line"]) & (own["direction"] == row["direction"])
                & (own["time"] >= begin) & (own["time"] < end)
            ]
            for own in found for name, begin, end in trials if name == row["trial"] or not row["trial"]
        ]  # fmt: skip
        assert set(row) - {"film"} == {"trial", "line", "direction", "faces", "crossings"}
        assert number(row["crossings"]) == sum(map(len, parts))
        assert number(row["faces"]) == sum(part["track"].nunique() for part in parts)


STEP = 0.001
"""Seconds between the moments at which labels are compared."""


def _agreement(report: Report, folder: Path, events: Mapping[str, pandas.DataFrame], coded: pandas.DataFrame) -> None:
    """Check the agreement of track 1 of each film with a coder. Intervals come from chance, so they are read."""
    pairs: list[tuple[str, str]] = []
    matched, ours, theirs, onsets = 0, 0, 0, []
    for film, own in events.items():
        anna = [(row.start, row.end, row.label) for row in coded[coded["film"] == film].itertuples()]
        begin, end = anna[0][0], anna[-1][1]
        spans = own[(own["type"] == "emotion.ended") & (own["track"] == 1)]
        found = [(row.start, row.end, row.label) for row in spans.itertuples() if row.end > begin and row.start < end]
        for number_ in range(round((end - begin) / STEP)):
            at = begin + (number_ + 0.5) * STEP
            pairs.append(tuple(next((c for a, b, c in one if a <= at < b), "") for one in (found, anna)))  # type: ignore[arg-type]
        ours, theirs = ours + len(found), theirs + len(anna)
        for a, b, label in ((max(a, begin), min(b, end), label) for a, b, label in found):
            for c, d, other in anna:
                if label == other and min(b, d) - max(a, c) >= 0.5 * (max(b, d) - min(a, c)):
                    matched += 1
                    if a > begin and c > begin:
                        onsets.append(a - c)
    both = [pair for pair in pairs if all(pair)]
    names = sorted({label for pair in both for label in pair})
    scores = [
        2 * both.count((name, name)) / (sum(a == name for a, _ in both) + sum(b == name for _, b in both))
        for name in names
    ]
    (row,) = report.parts["Agreement with coders"].rows()
    expected = {
        "agreement": sum(a == b for a, b in pairs) / len(pairs),
        "kappa": _kappa(pairs),
        "kappa, labelled time": _kappa(both),
        "macro F1, labelled time": sum(scores) / len(scores),
        "event F1": 2 * matched / (ours + theirs),
    }
    assert set(row) == {"raters", "films", *expected, "onset error in s"}
    assert row["raters"] == "fer-stream and anna"
    assert int(row["films"]) == len(events)
    written = {
        (each["scope"], each["measure"]): each
        for each in table(folder / "agreement/agreement.csv").to_dict("records")
        if pandas.isna(each["label"]) or each["first"] == "all"
    }
    keys = [("all time", "agreement"), ("all time", "kappa"), ("labelled time", "kappa"), ("labelled time", "macro_f1")]
    for (head, value), key in zip(expected.items(), [*keys, ("events", "f1")], strict=True):
        assert numbers(row[head])[0] == pytest.approx(value, abs=0.03), head
        assert numbers(row[head])[1:] == pytest.approx([written[key]["low"], written[key]["high"]], abs=0.0051)
    assert numbers(row["onset error in s"])[:1] == [pytest.approx(each, abs=0.01) for each in sorted(onsets)[:1]]
    together = report.parts["Agreement of all raters"].rows()
    assert len(together) == 4
    for row in together:
        assert int(row["films"]) == len(events)
        value, *interval = numbers(row["value"])
        assert value == pytest.approx(_alpha(pairs if row["time"] == "all time" else both), abs=0.03)
        low, high = (written[row["time"], "alpha"][side] for side in ("low", "high"))
        assert interval == ([] if row["measure"] == "Fleiss' kappa" else pytest.approx([low, high], abs=0.0051))
    assert numbers(report.parts["Agreement with coders"].note) == [95]


def _kappa(pairs: Sequence[tuple[str, str]]) -> float:
    """Return Cohen's kappa."""
    count = len(pairs)
    agreed = sum(a == b for a, b in pairs) / count
    names = {label for pair in pairs for label in pair}
    chance = sum(sum(a == name for a, _ in pairs) * sum(b == name for _, b in pairs) for name in names) / count**2
    return (agreed - chance) / (1 - chance)


def _alpha(pairs: Sequence[tuple[str, str]]) -> float:
    """Return Krippendorff's alpha of two coders; with many moments, Fleiss' kappa is the same."""
    every = [label for pair in pairs for label in pair]
    count = len(every)
    expected = 1 - sum(every.count(name) * (every.count(name) - 1) for name in set(every)) / (count * (count - 1))
    return 1 - sum(a != b for a, b in pairs) / len(pairs) / expected


def check_pictures(folder: Path, page: str) -> None:
    """Check the report on a folder of pictures."""
    report = Report(page)
    faces, pictures = table(folder / "faces.csv"), table(folder / "frames.csv")
    counts = faces["label"].value_counts()
    assert pictures["faces"].sum() == len(faces)
    assert report.figures == {
        "pictures": str(len(pictures)), "faces": str(len(faces)), "most frequent label": counts.index[0],
    }  # fmt: skip
    assert list(report.parts) == ["Share of each label"]
    part = report.parts["Share of each label"]
    assert {label: int(count) for label, count, _ in part.table[1:]} == dict(counts)
    _shares(part, {label: float(count) for label, count in counts.items()}, float(len(faces)))
    assert numbers(part.note) == numbers(report.lead) == numbers(report.title) == []
    assert f"fer-stream {summary(folder)['version']}, model {summary(folder)['model']}, labels:" in report.made
    settings = summary(folder)["settings"]
    assert numbers(report.made)[-2:] == [settings["detector"]["min_face"], settings["search"]["scan_interval"]]


def check_several_pictures(folder: Path, page: str) -> None:
    """Check the report on several analyses of pictures."""
    report = Report(page)
    faces, pictures = table(folder / "faces.csv"), table(folder / "frames.csv")
    assert report.figures == {"pictures": str(len(pictures)), "faces in pictures": str(len(faces))}
    assert list(report.parts) == ["Pictures"]
    rows = {row.pop("folder"): row for row in report.parts["Pictures"].rows()}
    assert set(rows) == set(pictures["film"])
    for name, row in rows.items():
        own = faces[faces["film"] == name]
        assert number(row.pop("pictures")) == (pictures["film"] == name).sum()
        assert number(row.pop("faces")) == len(own)
        _same_shares(row, float(len(own)), own["label"].value_counts().astype(float).to_dict())
    assert numbers(report.parts["Pictures"].note) == numbers(report.lead) == []
    about = summary(folder / next(iter(rows)))
    assert report.title == folder.name
    assert report.made.split() == f"fer-stream {about['version']}, model {about['model']}.".split()
