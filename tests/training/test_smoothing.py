"""Tracks with known ground truth, the figures that are computed from them, and the compared smoothers."""

import itertools
import math

import cv2
import numpy as np
import pytest
from foreign import XCEPTION

from fer_stream.errors import ModelError
from fer_stream.events.smoother import LabelSet
from fer_stream.inference import models
from fer_stream.inference.classifiers import adoption
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.settings.tree import Settings, SmootherSettings
from fer_stream.types import EMOTIONS
from training import data, sequences, smoothing
from training.sequences import Pool, Track
from training.smoothing import WRONG, Bench, Call, Markov, Smoothed, argmax, majority, measure

VALENCE = Settings.model_construct().valence
LABELS = LabelSet("emotions", EMOTIONS, VALENCE)
IDENTITY = {label: label for label in EMOTIONS}
HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")


def perfect_pool(right: float = 1.0, faces: int = 70) -> Pool:
    """Faces that are recognised at 0.9 in this share of their views, else mistaken; blurred views have quality 0."""
    random = np.random.default_rng(0)
    labels = np.arange(faces) % len(EMOTIONS)
    views = sequences.SHARP + sequences.BLURRED
    predicted = np.where(random.random((faces, views)) < right, labels[:, None], random.integers(0, 7, (faces, views)))
    scores = np.full((faces, views, 7), 0.1 / 6)
    np.put_along_axis(scores, predicted[..., None], 0.9, axis=2)
    quality = np.ones((faces, views))
    quality[:, sequences.SHARP :] = 0.0
    scores[:, sequences.SHARP :] = 1 / 7
    return Pool(scores, quality, labels)


@pytest.mark.parametrize("rate", smoothing.RATES)
def test_a_track_has_a_truth_without_gaps_and_frames_at_its_rate(rate):
    track = sequences.make_track(perfect_pool(), rate, np.random.default_rng(1))
    assert track.truth[0][1] == 0
    assert track.truth[-1][2] == sequences.LENGTH
    for (label, _, end), (other, start, _) in zip(track.truth, track.truth[1:], strict=False):
        assert (end, label != other) == (start, True)
    assert 0.7 * rate * sequences.LENGTH < len(track.times) <= rate * sequences.LENGTH
    assert (np.diff(track.times) > 0).all()
    assert track.scores.shape == (len(track.times), 7)
    np.testing.assert_allclose(track.scores.sum(axis=1), 1)
    assert set(track.quality) <= {0.0, 1.0}
    truth = np.array([label for label, _, _ in track.truth])
    now = np.searchsorted([start for _, start, _ in track.truth], track.times, side="right") - 1
    clear = track.quality == 1
    assert 0.8 < (track.scores.argmax(axis=1) == truth[now])[clear].mean() < 1, "most frames are right, some are wrong"


def test_a_pool_has_a_models_scores_for_each_view():
    random = np.random.default_rng(0)
    coarse, fine = (random.integers(0, 90, (3, n, n)).repeat(48 // n, 1).repeat(48 // n, 2) for n in (4, 24))
    images = (coarse + fine).astype(np.uint8)
    seen = []

    def predict(views):
        seen.append(views)
        return np.full((len(views), 7), 1 / 7)

    pool = sequences.make_pool(images, np.array([0, 1, 2]), predict)
    views = sequences.SHARP + sequences.BLURRED
    assert pool.scores.shape == (3, views, 7)
    assert seen[0].shape == (views, 48, 48)
    assert pool.quality[:, : sequences.SHARP].min() > pool.quality[:, sequences.SHARP :].max()
    assert pool[np.array([False, True, False])].labels.tolist() == [1]


def test_clear_faces_are_those_that_eight_of_ten_agree_on():
    votes = np.zeros((4, 10), np.uint8)
    for row, name, count in ((0, "happiness", 8), (1, "happiness", 7), (2, "contempt", 9), (3, "anger", 10)):
        votes[row, data.VOTES.index(name)] = count
    faces = data.Faces(np.zeros((4, 48, 48), np.uint8), np.zeros(4, int), np.array(["x"] * 4), np.arange(4), votes)
    clear, labels = sequences.clear_faces(faces)
    assert clear.rows.tolist() == [0, 3]
    assert [EMOTIONS[label] for label in labels] == ["happy", "angry"]


TRACK = Track(np.arange(0, 10, 0.1), np.zeros((100, 7)), np.ones(100), [(HAPPY, 0.0, 5.0), (SAD, 5.0, 10.0)])


@pytest.mark.parametrize(
    ("calls", "f1", "delay"),
    [
        ([Call("happy", 0.3, 0.1, 5.2), Call("sad", 5.5, 5.4, 9.9)], 1.0, 0.4),
        ([Call("happy", 0.3, 0.1, 5.2)], 2 / 3, 0.3),
        ([Call("happy", 0.3, 0.1, 9.0)], 2 / 3, 0.3),  # half of it overlaps
        ([Call("happy", 0.3, 0.1, 2.0), Call("sad", 5.5, 5.4, 9.9)], 0.5, 0.5),
        ([Call("happy", 0.2, 0.1, 5.0), Call("fear", 5.2, 5.1, 6.0), Call("sad", 6.0, 6.0, 10.0)], 0.8, 0.6),
        ([], 0.0, math.inf),
    ],
)
def test_what_counts_as_right(calls, f1, delay):
    found = measure(lambda *_: calls, LABELS, IDENTITY, [TRACK])
    assert found.f1 == pytest.approx(f1)
    assert found.delay[0] == pytest.approx(delay)
    assert found.calls == len(calls)


def test_consecutive_labels_of_one_group_are_merged():
    track = Track(TRACK.times, TRACK.scores, TRACK.quality, [(SAD, 0.0, 5.0), (EMOTIONS.index("fear"), 5.0, 10.0)])
    labels = LabelSet("valence", EMOTIONS, VALENCE)
    assert measure(lambda *_: [Call("negative", 0.2, 0.0, 10.0)], labels, VALENCE, [track]).f1 == 1


def flickering() -> Track:
    """Happy, with every fifth frame sad."""
    scores = np.full((100, 7), 0.02)
    predicted = np.where(np.arange(100) % 5 == 4, SAD, HAPPY)
    scores[np.arange(100), predicted] = 0.88
    return Track(TRACK.times, scores, np.ones(100), [(HAPPY, 0.0, 10.0)])


def test_argmax_flickers_and_the_others_do_not():
    track = flickering()
    assert len(argmax(LABELS, track)) == 40
    assert [call.label for call in majority(LABELS, track)] == ["happy"]
    for method in (Smoothed(SmootherSettings()), smoothing.MARKOV):
        (call,) = method(LABELS, track)
        assert (call.label, call.end) == ("happy", pytest.approx(9.9))
        assert call.published < 1


def test_looks_of_low_quality_have_no_effect():
    track = flickering()
    blurred = Track(track.times, track.scores.copy(), track.quality.copy(), track.truth)
    blurred.scores[30:60] = np.where(np.arange(7) == SAD, 0.88, 0.02)
    blurred.quality[30:60] = 0
    assert {call.label for call in Smoothed(SmootherSettings(), weighted=False)(LABELS, blurred)} == {"happy", "sad"}
    assert {call.label for call in Smoothed(SmootherSettings())(LABELS, blurred)} == {"happy"}


# The hidden Markov filter


def belief_after(parts: list[float], tau: float = 0.4, stay: float = 4.0) -> list[float]:
    """Return the belief after a look at a happy face, then looks at a sad one at intervals of ``parts`` seconds."""
    belief = Markov(3, stay, tau)
    belief.update(math.inf, (0.8, 0.1, 0.1), 1.0)
    for part in parts:
        belief.update(part, (0.2, 0.7, 0.1), 1.0)
    return belief.values


def test_one_step_is_the_forward_filter():
    """Compare with matrices: multiply by the transition matrix and by the tempered likelihood, then normalise."""
    tau, stay, dt = 0.4, 4.0, 0.25
    rates = (np.full((3, 3), 1 / 3) - np.eye(3)) * dt / stay
    moves = sum((np.linalg.matrix_power(rates, n) / math.factorial(n) for n in range(20)), np.zeros((3, 3)))
    first = np.array(belief_after([]))
    np.testing.assert_allclose(first, [(1 - WRONG) * p + WRONG / 3 for p in (0.8, 0.1, 0.1)])
    likely = ((1 - WRONG) * np.array([0.2, 0.7, 0.1]) + WRONG / 3) ** (1 - math.exp(-dt / tau))
    expected = (first @ moves) * likely
    assert belief_after([dt], tau, stay) == pytest.approx(expected / expected.sum())


def test_more_frames_in_the_same_second_add_little_evidence():
    few, many = belief_after([0.1] * 10), belief_after([0.005] * 200)
    assert many[1] == pytest.approx(few[1], abs=0.06)
    assert many[1] > 0.6


def test_omitted_labels_share_a_state():
    belief = Markov(2, 4.0, 0.4)
    belief.update(math.inf, (0.1, 0.1), 1.0)
    assert sum(belief.values) == pytest.approx(0.2, abs=0.5 * WRONG)


# Fitting, and the table


def test_fitting_finds_something_at_least_as_good_and_the_table_names_everything():
    bench = Bench(EMOTIONS, perfect_pool(0.8), (0,), 1)
    fitted = smoothing.fit(bench, markov=False, tries=6)
    assert bench.worth(fitted) >= bench.worth(Smoothed(SmootherSettings(tau=3.0, enter=0.95, leave=0.9, min_dwell=2.0)))
    assert isinstance(smoothing.fit(bench, markov=True, tries=2).stay, float)
    text = smoothing.table(EMOTIONS, perfect_pool(0.8), (0,), 1)
    for name in (*smoothing.SETS, *smoothing.candidates(), "the default, with a model that is never wrong"):
        assert f"| {name} |" in text
    assert "nan" not in text


# Smiles that a short pause separates


def smile_calls(*parts: tuple[str, float, float]):
    return lambda *_: [Call(label, start, start, end) for label, start, end in parts]


@pytest.mark.parametrize(
    ("parts", "share"),
    [
        ([("happy", 0, 3), ("happy", 4.5, 7.5)], 1.0),
        ([("happy", 0, 7.5)], 0.0),
        ([("happy", 0, 3), ("neutral", 3, 7.5)], 0.5),
        ([], 0.0),
    ],
)
def test_smiles_count_if_each_has_its_own_event(parts, share):
    truth = [(HAPPY, 0.0, 3.0), (EMOTIONS.index("neutral"), 3.0, 4.5), (HAPPY, 4.5, 7.5)]
    track = Track(TRACK.times, TRACK.scores, TRACK.quality, truth)
    assert smoothing.apart(smile_calls(*parts), LABELS, IDENTITY, [track]) == share
    named = [("positive" if label == "happy" else label, start, end) for label, start, end in parts]
    valence = LabelSet("valence", EMOTIONS, VALENCE)
    mapping = Bench(EMOTIONS, perfect_pool(), (0,), 1).sets["valence"][1]
    assert smoothing.apart(smile_calls(*named), valence, mapping, [track]) == share


def test_smiles_are_shown_with_the_same_pause_between_them():
    pool = perfect_pool()
    truth, faces = sequences.smiles(pool, np.random.default_rng(0))
    assert {EMOTIONS[label] for label, _, _ in truth} == {"happy", "neutral"}
    assert len(set(faces)) == 2, "one smiling face and one neutral face"
    for (label, start, end), (other, then, _) in itertools.pairwise(truth):
        assert (then, other != label) == (end, True)
        low, high = sequences.SMILE if label == HAPPY else (sequences.PAUSE, sequences.PAUSE)
        assert low - 1e-9 <= end - start <= high + 1e-9 or end == sequences.LENGTH


def test_without_a_happy_face_there_is_no_figure_for_smiles():
    pool = perfect_pool()
    with pytest.raises(ValueError, match="empty"):
        sequences.smiles(pool[pool.labels != HAPPY], np.random.default_rng(0))
    bench = Bench(EMOTIONS, pool[pool.labels != HAPPY], (0,), 1)
    assert math.isnan(bench.apart(argmax, "seven labels"))


def test_a_model_that_is_never_wrong_errs_only_where_the_track_does():
    pool = sequences.perfect(perfect_pool(0.5))
    assert (pool.scores.argmax(axis=2) == pool.labels[:, None]).all()
    np.testing.assert_allclose(pool.scores.sum(axis=2), 1)
    real, ideal = (Bench(EMOTIONS, each, (0,), 1) for each in (perfect_pool(0.5), pool))
    default = Smoothed(SmootherSettings())
    assert ideal.figures(default, "seven labels").f1 > real.figures(default, "seven labels").f1


# Models of other people


def foreign_model(folder, labels="angry,disgust,fear,happy,sad,surprise,neutral"):
    path = XCEPTION.write(folder / "theirs.onnx")
    answers = {"pixels": "signed", "crop": "fer2013", "labels": labels, "license": "MIT", "trained-on": "faces"}
    models.sidecar_of(path).write_text(adoption.adopt(models.load(path), answers, None))
    return path


def clear_faces_of(labels):
    """A face of each label on which ten annotators agree, of PublicTest."""
    votes = np.zeros((len(labels), 10), np.uint8)
    plus = {"happy": "happiness", "sad": "sadness", "angry": "anger"}
    for row, label in enumerate(labels):
        votes[row, data.VOTES.index(plus.get(label, label))] = 10
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 48, 48), np.uint8)
    usage = np.array([data.PUBLIC] * len(labels))
    return data.Faces(images, np.zeros(len(labels), int), usage, np.arange(len(labels)), votes)


def test_a_foreign_model_sees_the_faces_as_in_the_service(tmp_path, monkeypatch):
    seen = []
    make = sequences.make_pool

    def watched(images, labels, predict, seed=0):
        def look(views):
            seen.append((views, predict(views)))
            return seen[-1][1]

        return make(images, labels, look, seed)

    monkeypatch.setattr(sequences, "make_pool", watched)
    path = foreign_model(tmp_path)
    names, fitting, reporting = smoothing.pools(path, clear_faces_of(["happy", "sad", "fear", "happy"]))
    assert names == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert len(fitting.labels) + len(reporting.labels) == 4
    views, rows = seen[0]
    for view, row in zip(views, rows, strict=True):
        pixels = cv2.resize(view, (64, 64), interpolation=cv2.INTER_AREA).astype(float)[..., None] / 127.5 - 1
        np.testing.assert_allclose(row, XCEPTION.answer(pixels), atol=2e-3)


def test_faces_of_labels_that_a_model_does_not_have_are_left_out(tmp_path):
    path = foreign_model(tmp_path, "angry,disgust,fright,happy,sad,surprise,neutral")
    _, *halves = smoothing.pools(path, clear_faces_of(["happy", "sad", "fear", "happy"]))
    labels = [EMOTIONS[label] for half in halves for label in half.labels]
    assert sorted(labels) == ["happy", "happy", "sad"]
    with pytest.raises(ModelError, match="has fewer than two of FER2013's labels"):
        smoothing.pools(foreign_model(tmp_path, "a,b,c,d,e,f,happy"), clear_faces_of(["happy"]))


def test_fitted_settings_are_written_into_the_sidecar(tmp_path):
    path = foreign_model(tmp_path)
    before = OnnxClassifier(path)
    assert smoothing.write(path, SmootherSettings(tau=0.4, patience=0.6)) == tmp_path / "theirs.toml"
    after = OnnxClassifier(path)
    assert after.smoother == {"tau": 0.4, "enter": 0.65, "leave": 0.25, "min_dwell": 0.1, "patience": 0.6}
    assert (after.labels, after.crop, after.version) == (before.labels, before.crop, before.version)
