"""Every figure of a report, computed again from the tables beside it, by pandas and plain Python."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas
import pytest
from reported import Report, number

import fer_stream

if TYPE_CHECKING:
    from beside import Beside
    from processes import Cli

    Shares = dict[str, float]

PORTRAITS = Path(fer_stream.__file__).parent / "assets"

GOOD, BAD = {"happy", "surprise"}, {"sad", "angry", "disgust", "fear", "contempt"}
"""Labels by valence, as in docs/how-to/labels.md; neutral is neither."""

TRIALS = [("first", 0.0, 1.0), ("second", 1.0, 2.2), ("first", 2.5, 2.8)]

PLACES = """
[cameras.portraits.zones]
left = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]
right = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]

[cameras.portraits.lines.door]
points = [[0.78, 0.0], [0.78, 1.0]]
to_right = "in"
to_left = "out"
"""


def _table(path: Path) -> pandas.DataFrame:
    return pandas.read_csv(path, keep_default_na=False, na_values=[""])


def _time(events: pandas.DataFrame, begin: float = 0.0, end: float = 1e9) -> tuple[float, dict[str, float], int]:
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


def _same_shares(row: dict[str, str], in_view: float, labels: dict[str, float]) -> None:
    shown = {head.removesuffix(" %"): number(cell) for head, cell in row.items() if head.endswith(" %") and cell != "-"}
    expected = {label: 100 * seconds / in_view for label, seconds in labels.items()} if in_view else {}
    for label in shown | expected:
        assert shown.get(label, 0) == pytest.approx(expected.get(label, 0), abs=0.11), label


def _check_film(folder: Path) -> None:
    report = Report(folder / "report.html")
    faces, events, frames = (_table(folder / f"{name}.csv") for name in ("faces", "events", "frames"))
    in_view, labels, _ = _time(events)
    assert in_view > 0.5
    certain = sorted((part, label) for label, part in labels.items() if label != "uncertain")
    assert {key: value for key, value in report.figures.items() if key != "without a sure label"} == {
        "frames": f"{len(frames):,}",
        "tracks": f"{(events['type'] == 'face.left').sum():,}",
        "face-seconds": f"{in_view:,.1f}",
        "most frequent label": certain[-1][1] if certain else "none",
    }
    assert number(report.figures["without a sure label"]) == pytest.approx(100 * labels["uncertain"] / in_view, abs=0.6)

    # Labels over time
    ended = events[events["type"] == "emotion.ended"]
    spans = {(str(int(row.track)), row.label, round(row.start, 2), round(row.end, 2)) for row in ended.itertuples()}
    left = events[(events["type"] == "face.left") & ~events["track"].isin(ended["track"])]
    spans |= {(str(int(row.track)), "uncertain", round(row.start, 2), round(row.end, 2)) for row in left.itertuples()}
    timeline = report.parts["Labels over time"]
    assert {(track, label, float(a), float(b)) for track, label, a, b in timeline.table[1:]} == spans
    assert {label for _, label, _, _ in spans} <= {*timeline.drawn, "uncertain"}

    # Share of each label
    shown = report.parts["Share of each label"]
    expected = {label: 100 * part / in_view for label, part in labels.items() if part > 1e-6}
    assert {label: number(share) for label, share in shown.table[1:]} == pytest.approx(expected, abs=0.051)
    drawn = [text for text in shown.drawn if text.endswith(" %")]
    assert sorted(map(number, drawn)) == pytest.approx(sorted(expected.values()), abs=0.051)

    # Valence, and time without a sure label: of the faces that were found on a track
    names = [name.removeprefix("scored_") for name in faces.columns if name.startswith("scored_")]
    seen = faces[faces["found"] & ~faces["provisional"] & faces[names[0]].notna()].copy()
    signs = [(name in GOOD) - (name in BAD) for name in names]
    seen["signed"] = sum(sign * seen[name] for sign, name in zip(signs, names, strict=True))
    curve = seen.groupby((seen["time"] / 0.5).astype(int))["signed"].mean()
    points = {min(0.5 * (step + 0.5), frames["time"].iloc[-1]): mean for step, mean in curve.items()}
    valence = report.parts["Valence over time"].table[1:]
    assert [float(at) for at, _ in valence] == pytest.approx(list(points), abs=1e-5)
    assert [float(value) for _, value in valence] == pytest.approx(list(points.values()), abs=0.006)

    steps = dict(zip(frames["frame"], frames["time"].diff().fillna(0.0), strict=True))
    between: defaultdict[str, float] = defaultdict(float)
    for row in seen[seen["label"].isna()].to_dict("records"):
        first, second = sorted(sorted(names, key=lambda name: -row[name])[:2])
        between[f"{first} or {second}"] += steps[row["frame"]]
    unsure = {pair: number(seconds) for pair, seconds in report.parts["Time without a sure label"].table[1:]}
    assert unsure == pytest.approx({pair: seconds for pair, seconds in between.items() if seconds}, abs=0.051)

    counts = events["type"].value_counts().to_dict()
    assert {kind: int(number(count)) for kind, count in report.parts["Events"].table[1:]} == counts


def _check_study(folder: Path) -> None:
    report = Report(folder / "report.html")
    events, frames = _table(folder / "events.csv"), _table(folder / "frames.csv")
    films = list(frames["film"].unique())
    times = {film: _time(events[events["film"] == film]) for film in films}
    seconds = {film: frames[frames["film"] == film]["time"].iloc[-1] for film in films}
    shown = {row.pop("film"): row for row in report.parts["Films"].rows()}
    assert list(shown) == [*films, "all films"]
    for film in films:
        own = events[events["film"] == film]
        in_view, labels, _ = times[film]
        assert number(shown[film]["seconds"]) == pytest.approx(seconds[film], abs=0.051)
        assert number(shown[film]["frames"]) == (frames["film"] == film).sum()
        assert number(shown[film]["tracks"]) == (own["type"] == "face.left").sum()
        assert number(shown[film]["face-seconds"]) == pytest.approx(in_view, abs=0.051)
        _same_shares(shown[film], in_view, labels)
    in_view, labels, _ = _time(events)
    whole = shown["all films"]
    assert number(whole["seconds"]) == pytest.approx(sum(seconds.values()), abs=0.051)
    assert number(whole["frames"]) == len(frames)
    assert number(whole["tracks"]) == (events["type"] == "face.left").sum()
    assert number(whole["face-seconds"]) == pytest.approx(in_view, abs=0.051)
    _same_shares(whole, in_view, labels)
    certain = {label: part for label, part in labels.items() if label != "uncertain"}
    assert report.figures == {
        "films": str(len(films)),
        "minutes": f"{sum(seconds.values()) / 60:,.1f}",
        "tracks": whole["tracks"],
        "face-seconds": f"{in_view:,.1f}",
        "most frequent label": max(certain, key=certain.__getitem__),
        "without a sure label": f"{labels['uncertain'] / in_view:.0%}",
    }
    assert report.parts["Films"].links == [f"{film}/report.html" for film in films]
    assert all((folder / link).is_file() for link in report.parts["Films"].links)
    assert set(films) <= set(report.parts["Films"].drawn)


def _check_trials(report: Report, events: dict[str, pandas.DataFrame]) -> None:
    """Check the trials of films; of one film without a name in its own report."""
    rows = report.parts["Trials"].rows()
    expected = {}
    for film, own in [*events.items(), *([("all films", pandas.concat(events.values()))] if "" not in events else [])]:
        for name in dict.fromkeys(name for name, _, _ in TRIALS):
            parts = [_time(own, begin, end) for trial, begin, end in TRIALS if trial == name]
            labels: defaultdict[str, float] = defaultdict(float)
            for _, found, _ in parts:
                for label, seconds in found.items():
                    labels[label] += seconds
            expected[film, name] = sum(part[0] for part in parts), labels, sum(part[2] for part in parts)
    assert [(row.get("film", ""), row["trial"]) for row in rows] == list(expected)
    for row, (in_view, labels, faces) in zip(rows, expected.values(), strict=True):
        assert number(row["faces"]) == faces
        assert number(row["seconds in view"]) == pytest.approx(in_view, abs=0.06)
        _same_shares(row, in_view, labels)
    assert {name for name, _, _ in TRIALS} <= set(report.parts["Trials"].drawn)


def _check_places(report: Report, events: pandas.DataFrame) -> None:
    """Check the zones and lines of one film with trials."""
    spans = events[events["type"] == "emotion.ended"]
    visits = events[events["type"] == "zone.left"]
    crossings = events[events["type"] == "line.crossed"]
    assert len(visits)
    assert len(crossings)
    for row in report.parts["Zones"].rows():
        in_view, faces, count, labels = 0.0, 0, 0, defaultdict[str, float](float)
        for _, begin, end in (trial for trial in TRIALS if trial[0] == row["trial"]):
            there = set()
            for visit in visits[visits["zone"] == row["zone"]].itertuples():
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
        assert (number(row["faces"]), number(row["visits"])) == (faces, count), row
        assert number(row["seconds in view"]) == pytest.approx(in_view, abs=0.06)
        _same_shares(row, in_view, labels)
    for row in report.parts["Lines"].rows():
        own = crossings[(crossings["line"] == row["line"]) & (crossings["direction"] == row["direction"])]
        parts = [
            own[(own["time"] >= begin) & (own["time"] < end)] for name, begin, end in TRIALS if name == row["trial"]
        ]
        assert number(row["crossings"]) == sum(map(len, parts))
        assert number(row["faces"]) == sum(part["track"].nunique() for part in parts)


def _analyse(cli: Cli, films: list[Path], **settings: str) -> Path:
    (cli.folder / "places.toml").write_text(PLACES)
    lines = ["start,end,name", *(f"{begin},{end},{name}" for name, begin, end in TRIALS)]
    (cli.folder / "trials.csv").write_text("\n".join(lines))
    done = cli.run(
        "analyze", *films, "--output", "study", "--markers", "trials.csv", "--config", "places.toml", **settings
    )
    assert done.popen.returncode == 0, done.err
    return cli.folder / "study"


def _check_all(folder: Path) -> None:
    _check_study(folder)
    events = {}
    for film in sorted(path.parent for path in folder.glob("*/report.html")):
        _check_film(film)
        events[film.name] = _table(film / "events.csv")
        _check_trials(Report(film / "report.html"), {"": events[film.name]})
    order = _table(folder / "frames.csv")["film"].unique()
    _check_trials(Report(folder / "report.html"), {film: events[film] for film in order})


def test_every_figure_of_the_demo_can_be_computed_again(cli: Cli, clip: Path) -> None:
    other = cli.folder / "again.avi"
    shutil.copy(clip, other)
    folder = _analyse(cli, [clip, other], FER_STREAM_CLASSIFIER__MODEL="emotion-ferplus.onnx")
    _check_all(folder)
    assert clip.stem == "portraits"
    _check_places(Report(folder / "portraits/report.html"), _table(folder / "portraits/events.csv"))


def test_every_figure_of_real_films_can_be_computed_again(cli: Cli, beside: Beside) -> None:
    _check_all(_analyse(cli, beside.clips(), FER_STREAM_CLASSIFIER__MODEL="emotion-ferplus.onnx"))


def test_every_figure_of_pictures_can_be_computed_again(cli: Cli) -> None:
    album = cli.folder / "album"
    shutil.copytree(PORTRAITS, album, ignore=shutil.ignore_patterns("*.md", "models"))
    (album / "wall.png").write_bytes(cv2.imencode(".png", np.full((90, 90, 3), 80, np.uint8))[1].tobytes())
    model = {"FER_STREAM_CLASSIFIER__MODEL": "emotion-ferplus.onnx"}
    assert cli.run("analyze", album, "--output", "one", "--pictures", **model).popen.returncode == 0
    faces, pictures = (_table(cli.folder / f"one/{name}.csv") for name in ("faces", "frames"))
    counts = faces["label"].value_counts()
    report = Report(cli.folder / "one/report.html")
    assert report.figures == {
        "pictures": str(len(pictures)), "faces": str(len(faces)), "most frequent label": counts.index[0],
    }  # fmt: skip
    assert pictures["faces"].sum() == len(faces) == 2
    shown = {
        label: (int(count), number(share)) for label, count, share in report.parts["Share of each label"].table[1:]
    }
    expected = {label: (count, round(100 * count / len(faces), 1)) for label, count in counts.items()}
    assert shown == expected

    images = sorted(PORTRAITS.glob("*.jpg"))
    assert cli.run("analyze", *images, "--output", "several", **model).popen.returncode == 0
    faces = _table(cli.folder / "several/faces.csv")
    report = Report(cli.folder / "several/report.html")
    assert report.figures == {"films": "0", "pictures": str(len(images))}
    rows = {row["folder"]: row for row in report.parts["Pictures"].rows()}
    assert set(rows) == {image.stem for image in images}
    for film, own in faces.groupby("film"):
        assert number(rows[film]["faces"]) == len(own)
        _same_shares(rows[film], float(len(own)), own["label"].value_counts().astype(float).to_dict())
