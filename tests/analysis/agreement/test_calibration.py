"""Calibrations of films whose scores are made here with a known distortion."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli.command import fer_stream

from fer_stream.analysis.agreement import calibration
from fer_stream.analysis.agreement.calibration import Fit, Scored, calibrate, fit, probabilities, read_scores
from fer_stream.analysis.agreement.films import Choices, gather
from fer_stream.errors import AnnotationError
from fer_stream.events.calibration import Calibration
from fer_stream.events.cloudevents import encode
from fer_stream.settings.tree import CalibrationSettings, load
from fer_stream.types import Box, CameraData, Event, EventType, ExpressionData, Probabilities, Probability

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("happy", "neutral", "sad")
TRUE = Fit(2.0, np.array([0.0, 1.5, -1.0]))
"""What corrects the scores that are made here."""


def _scored(seed: int, count: int = 400) -> Scored:
    """Return scores for which `TRUE` gives the probabilities of the truth that is drawn."""
    rng = np.random.default_rng(seed)
    right = rng.dirichlet((0.7, 1.0, 0.6), count)
    truth = np.array([rng.choice(3, p=each) for each in right])
    logs = (np.log(np.maximum(right, 1e-6)) - TRUE.bias) * TRUE.temperature
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    return Scored(f"film{seed}", np.maximum(logs, np.log(1e-4)), truth)


def _analysis(folder: Path, scored: Scored) -> str:
    """Write an analysis with these scores, one every 0.2 s, and return the coder's rows."""
    folder.mkdir(parents=True)
    count = len(scored.truth)
    rows = [
        "frame,time,track,x,y,width,height,detection,label,happy,neutral,sad,quality,scored_happy,scored_neutral,scored_sad,valence,scored_valence"
    ]
    for number, logs in enumerate(scored.logs):
        values = ",".join(f"{value:.4f}" for value in np.exp(logs))
        rows.append(f"{2 * number + 1},{0.2 * number:.6f},1,0,0,9,9,1,happy,{values},1,{values},0.5,0.5")
        rows.append(f"{2 * number + 2},{0.2 * number + 0.1:.6f},1,0,0,9,9,1,happy,{values},,,,,0.5,")
    (folder / "faces.csv").write_text("\n".join(rows) + "\n")
    duration = round(0.2 * count, 3)
    (folder / "summary.json").write_text(json.dumps({"source": f"{scored.film}.mp4", "duration_s": duration}))
    data = ExpressionData(
        0, round(duration * 1e9), round(duration * 1e3), "happy", None, Probability(0.9, 0.9),  # type: ignore[arg-type]
        dict.fromkeys(LABELS, 0.3), Box(0, 0, 9, 9), 1.0,
    )  # fmt: skip
    base = Event(EventType.CAMERA_ONLINE, "door", 1, 1, 0, 0, CameraData("first frame", 64, 64))  # type: ignore[arg-type]
    ended = replace(base, type=EventType.EMOTION_ENDED, track=1, time=round(duration * 1e9), data=data)  # type: ignore[arg-type]
    (folder / "events.jsonl").write_text("\n".join(map(encode, (base, ended))) + "\n")
    spans = [
        f"{scored.film},{0.2 * at - 0.05:.3f},{0.2 * at + 0.1:.3f},{LABELS[label]}"
        for at, label in enumerate(scored.truth)
    ]
    return "\n".join(spans).replace("-0.050", "0.000")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    rows = [_analysis(folder / "ours" / f"film{seed}", _scored(seed)) for seed in range(6)]
    (folder / "anna.csv").write_text("\n".join(["film,start,end,label", *rows]))
    return folder


def test_a_known_distortion_is_found() -> None:
    found = fit([_scored(seed, 4000) for seed in range(6)])
    assert found.temperature == pytest.approx(TRUE.temperature, rel=0.1)
    moved = found.bias - TRUE.bias
    assert moved - moved.mean() == pytest.approx([0, 0, 0], abs=0.15)


def test_the_fit_is_a_minimum() -> None:
    """No small step in any direction has a lower loss, which is computed here by another way."""
    scored = [_scored(seed, 60) for seed in range(3)]

    def loss(correction: Fit) -> float:
        films = []
        for each in scored:
            total = 0.0
            for logs, truth in zip(each.logs, each.truth, strict=True):
                settings = CalibrationSettings(
                    temperature=correction.temperature, bias=dict(zip(LABELS, correction.bias.tolist(), strict=True))
                )
                values = Calibration(settings, LABELS).apply(Probabilities(LABELS, tuple(np.exp(logs)))).values
                total -= float(np.log(values[truth]))
            films.append(total / len(each.truth))
        distance = (1 / correction.temperature - 1) ** 2 + float((correction.bias**2).sum())
        return sum(films) / len(films) + calibration.PULL / 2 * distance

    found = fit(scored)
    least = loss(found)
    for step in (-0.03, 0.03):
        assert loss(Fit(found.temperature + step, found.bias)) > least
        for label in range(3):
            assert loss(Fit(found.temperature, found.bias + step * np.eye(3)[label])) > least


def test_whatever_is_fitted_is_a_valid_setting() -> None:
    """The model is always sure, and always wrong."""
    logs = np.log(np.tile([0.9998, 1e-4, 1e-4], (50, 1)))
    found = fit([Scored(f"film{number}", logs, np.ones(50, int)) for number in range(40)])
    settings = CalibrationSettings(temperature=found.temperature, bias=dict(zip(LABELS, found.bias, strict=True)))
    corrected = Calibration(settings, LABELS).apply(Probabilities(LABELS, (0.9998, 1e-4, 1e-4)))
    assert max(zip(corrected.values, LABELS, strict=True))[1] == "neutral"


def test_a_label_that_one_film_shows_gets_no_bias() -> None:
    films = [_scored(seed) for seed in range(3)]
    films[1:] = [Scored(each.film, each.logs[each.truth != 2], each.truth[each.truth != 2]) for each in films[1:]]
    assert fit(films).bias[2] == 0
    assert fit(films).bias[1] != 0


def test_it_is_applied_as_it_was_fitted() -> None:
    scored = _scored(1, 50)
    settings = CalibrationSettings(
        temperature=TRUE.temperature, bias=dict(zip(LABELS, TRUE.bias.tolist(), strict=True))
    )
    applied = [
        Calibration(settings, LABELS).apply(Probabilities(LABELS, tuple(np.exp(each)))).values for each in scored.logs
    ]
    assert np.array(applied) == pytest.approx(probabilities(scored.logs, TRUE))


def test_scores_are_read_with_the_coder_s_labels(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    material = gather(films / "ours", [films / "anna.csv"], Choices())
    found, labels = read_scores(material.films[2], "anna")
    assert labels == LABELS
    expected = _scored(2)
    assert found.truth.tolist() == expected.truth.tolist()
    assert np.exp(found.logs) == pytest.approx(np.maximum(np.exp(expected.logs), 1e-4), abs=1e-4)
    table = films / "ours/film2/faces.csv"
    text = table.read_text()
    try:  # a second face of our line, in the frame of the third score
        lines = text.splitlines()
        lines.insert(6, lines[5].replace(",1,", ",2,", 1))
        table.write_text("\n".join(lines))
        both = replace(material.films[2], tracks=frozenset("12"))
        assert read_scores(both, "anna")[0].truth.tolist() == np.delete(expected.truth, 2).tolist()
        assert read_scores(material.films[2], "anna")[0].truth.tolist() == expected.truth.tolist()
    finally:
        table.write_text(text)
    monkeypatch.setattr(calibration, "MOST_SCORES", 50)
    fewer, _ = read_scores(material.films[2], "anna")
    assert len(fewer.truth) == 50


def test_a_calibration_that_helps_is_reported_and_written(films: Path, tmp_path: Path) -> None:
    material = gather(films / "ours", [films / "anna.csv"], Choices())
    found = calibrate(material, "door")
    loss, accuracy, error = found.effects
    assert found.helps
    assert "ignore the model" not in found.verdict()
    assert loss.change < 0
    assert loss.interval.low <= loss.change <= loss.interval.high < 0
    assert accuracy.after > accuracy.before
    assert error.after < error.before
    path = tmp_path / "calibration.toml"
    path.write_text(found.settings())
    assert load(file=path).calibration["door"].temperature == pytest.approx(found.fit.temperature, abs=1e-4)
    assert set(tomllib.loads(found.settings())["calibration"]["door"]["bias"]) <= set(LABELS)
    path.write_text(replace(found, camera="*").settings())
    assert list(load(file=path).calibration) == ["*"]


def test_scores_that_are_right_already_get_no_calibration(tmp_path: Path) -> None:
    """The truth is drawn from the scores themselves: any correction can only do harm on held-out films."""
    rows = []
    for seed in range(4):
        scored = _scored(seed, 60)
        right = probabilities(scored.logs, TRUE)
        truth = np.array([np.random.default_rng(seed + at).choice(3, p=each) for at, each in enumerate(right)])
        rows.append(_analysis(tmp_path / "ours" / f"film{seed}", Scored(f"film{seed}", np.log(right), truth)))
    (tmp_path / "anna.csv").write_text("\n".join(["film,start,end,label", *rows]))
    found = calibrate(gather(tmp_path / "ours", [tmp_path / "anna.csv"], Choices()), "door")
    assert not found.helps
    assert "It is not sure that the calibration helps, so it is not written" in found.verdict()
    code, out, _ = fer_stream(
        "agree", str(tmp_path / "ours"), str(tmp_path / "anna.csv"), "--calibrate", "door", "-o", str(tmp_path / "out")
    )
    assert code == 0
    assert found.verdict() in out
    assert not (tmp_path / "out/calibration.toml").exists()


def test_a_correction_that_ignores_the_model_is_said(tmp_path: Path) -> None:
    """The coder draws labels whatever the scores are: to make the model unsure lowers the loss, and is of no use."""
    rows = []
    for seed in range(6):
        scored = _scored(seed)
        truth = np.random.default_rng(seed).integers(0, 3, len(scored.truth))
        rows.append(_analysis(tmp_path / "ours" / f"film{seed}", replace(scored, truth=truth)))
    (tmp_path / "anna.csv").write_text("\n".join(["film,start,end,label", *rows]))
    found = calibrate(gather(tmp_path / "ours", [tmp_path / "anna.csv"], Choices()), "door")
    assert found.effects[0].interval.high < 0
    assert found.blind == pytest.approx(np.log(3), abs=0.01)
    assert "which ignore the model, have 1." in found.verdict()


def test_the_command(films: Path, tmp_path: Path) -> None:
    command = ("agree", str(films / "ours"), str(films / "anna.csv"), "--calibrate", "door")
    code, out, _ = fer_stream(*command, "--output", str(tmp_path / "out"))
    assert code == 0
    assert "The calibration helps on held-out films: the log-loss goes from " in out
    text = (tmp_path / "out/calibration.toml").read_text()
    assert "[calibration.door]" in text
    assert "<h2>Calibration of door</h2>" in (tmp_path / "out/agreement.html").read_text()
    assert fer_stream(*command)[1].endswith(text)


def test_what_cannot_be_calibrated(films: Path, tmp_path: Path) -> None:
    ours, anna = films / "ours", films / "anna.csv"
    one = gather(ours / "film1", [anna], Choices())
    with pytest.raises(AnnotationError, match=r"needs at least 3 films in which anna gives a label .* but there are 1"):
        calibrate(one, "door")
    text = anna.read_text()
    (tmp_path / "ben.csv").write_text(text)
    with pytest.raises(AnnotationError, match="fits to one coder, not to anna, ben: give one"):
        calibrate(gather(ours, [anna, tmp_path / "ben.csv"], Choices()), "door")
    with pytest.raises(AnnotationError, match="needs the scores of the model: give folders of fer-stream analyze"):
        calibrate(gather(anna, [tmp_path / "ben.csv"], Choices()), "door")
    assert "leave out --by valence" in fer_stream("agree", "a", "b", "--calibrate", "door", "--by", "valence")[2]
    (tmp_path / "film0").mkdir()
    for name in ("events.jsonl", "summary.json"):
        (tmp_path / "film0" / name).write_bytes((ours / "film0" / name).read_bytes())
    with pytest.raises(AnnotationError, match=r"faces\.csv is no complete table of faces"):
        calibrate(gather(tmp_path / "film0", [anna], Choices()), "door")
