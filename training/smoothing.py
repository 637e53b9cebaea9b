"""Compare smoothers by their events on tracks with known ground truth (`training.sequences`).

    python -m training.smoothing models/emotion.onnx data/fer2013.csv --plus data/fer2013new.csv          # the table
    python -m training.smoothing ... --fit 100                            # search for settings, on the other faces
    python -m training.smoothing mine.onnx ... --fit 100 --write          # and write them into the model's sidecar

The model may be any that ``fer-stream model check`` accepts, if at least two of its labels are FER2013's. Each face is
cropped as if a detector had found it there, without landmarks.

Half of PublicTest's clear faces are used to fit parameters, the other half to report figures. An event is correct if
its label is, and if its overlap with the truth (intersection over union) is at least a half. The delay is the time from
a change to the publication of its event; flicker is the number of events relative to argmax's. As in the service, a
face is scored once per ``search.look_interval``, sooner if a score would change its label; argmax and the majority see
every frame.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from fer_stream.errors import ConfigError, FerStreamError, ModelError
from fer_stream.events.attention import SOON
from fer_stream.events.smoother import Belief, LabelSet, Smoother
from fer_stream.inference import models
from fer_stream.inference.classifiers.contract import SmootherContract, with_smoother
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.settings.tree import SearchSettings, Settings, SmootherSettings
from fer_stream.types import Nanoseconds, Probabilities
from training import data, sequences
from training.crop import frame_face

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from training.sequences import Pool, Script, Track

RATES = (5.0, 10.0, 15.0, 30.0)
"""Frames per second."""

SEEDS = (0, 1, 2)

LOOK = SearchSettings().look_interval

WINDOW = 1.0
"""Length of the majority window in seconds."""


class Call(NamedTuple):
    """A published label: its time of publication, and its start and end. Seconds."""

    label: str
    published: float
    start: float
    end: float


Method = Callable[[LabelSet, "Track"], list[Call]]


def runs(times: Sequence[float], names: Sequence[str]) -> list[Call]:
    """Return a call for each run of equal names."""
    calls = []
    for name, group in itertools.groupby(zip(times, names, strict=True), key=lambda pair: pair[1]):
        moments = [moment for moment, _ in group]
        calls.append(Call(name, moments[0], moments[0], moments[-1]))
    # A run lasts until the next one begins.
    return [call._replace(end=after.start) for call, after in itertools.pairwise(calls)] + calls[-1:]


def argmax(labels: LabelSet, track: Track) -> list[Call]:
    """Return each frame's most probable label, as demos show it."""
    return runs(track.times.tolist(), [look.top()[0] for look in _looks(labels, track)])


def majority(labels: LabelSet, track: Track) -> list[Call]:
    """Return the label that was the most probable one most often over the last `WINDOW` seconds."""
    times = track.times.tolist()
    tops = [look.top()[0] for look in _looks(labels, track)]
    names = []
    for i, now in enumerate(times):
        recent = [tops[k] for k in range(i, -1, -1) if times[k] > now - WINDOW]
        names.append(max(labels.labels, key=recent.count))
    return runs(times, names)


WRONG = 0.1
"""Assumed share of looks that show something other than the face; it gives every label a minimum probability."""


class Markov:
    """A hidden Markov model: a label lasts ``stay`` seconds on average; a model's scores are the observations.

    Over ``dt`` seconds the state stays with probability ``exp(-dt / stay)``; otherwise all states are equally likely. A
    look multiplies the belief by the scores, which are likelihoods under a uniform prior, to the power of
    ``weight * (1 - exp(-dt / tau))``: frames less than ``tau`` apart are largely redundant, so evidence grows with
    time and not with the frame rate. If the label set leaves labels out, one more state stands for all of them.
    """

    def __init__(self, labels: int, stay: float, tau: float) -> None:
        self._stay, self._tau = stay, tau
        self._labels = labels
        self._state = [1.0 / labels] * labels + [0.0]

    @property
    def values(self) -> list[float]:
        """The belief in each label."""
        return self._state[:-1]

    def update(self, seconds: float, look: Sequence[float], weight: float) -> None:
        """See `fer_stream.events.smoother.Belief.update`."""
        others = max(0.0, 1.0 - sum(look))
        states = self._labels + (others > 1e-6 or self._state[-1] > 0)
        fresh = -math.expm1(-seconds / self._stay) / states
        kept = math.exp(-seconds / self._stay)
        power = weight * -math.expm1(-seconds / self._tau)
        floor = WRONG / states
        seen = [(1 - WRONG) * share + floor for share in (*look, others)][:states]
        state = [(kept * old + fresh) * share**power for old, share in zip(self._state, seen, strict=False)]
        total = sum(state)
        self._state = [value / total for value in state] + [0.0] * (self._labels + 1 - states)


@dataclass(frozen=True)
class Smoothed:
    """The service's hysteresis, with its own belief or, if ``stay`` (seconds) is given, with `Markov`'s."""

    settings: SmootherSettings
    stay: float | None = None
    weighted: bool = True

    def __call__(self, labels: LabelSet, track: Track) -> list[Call]:
        """Return the calls that a subscriber receives."""
        belief: Belief | None = None
        if self.stay:
            belief = Markov(len(labels.labels), self.stay, self.settings.tau)
        smoother = Smoother(labels, self.settings, belief)
        calls: dict[int, Call] = {}
        looked = -math.inf
        for time, row, worth in zip(track.times.tolist(), track.scores.tolist(), track.quality.tolist(), strict=True):
            if time - looked < (LOOK / SOON if smoother.unsettled else LOOK):
                continue
            looked, now = time, Nanoseconds(round(time * 1e9))
            changes = smoother.observe(
                now, Probabilities(labels.model_labels, tuple(row)), worth if self.weighted else 1.0
            )
            for change in changes:
                start = change.interval.start / 1e9
                if change.what == "started":
                    calls[change.interval.start] = Call(change.interval.label, time, start, time)
                elif change.what == "ended":
                    call = calls[change.interval.start]
                    calls[change.interval.start] = call._replace(end=change.interval.last / 1e9)
        for change in smoother.close(Nanoseconds(round(track.times[-1] * 1e9))):
            calls[change.interval.start] = calls[change.interval.start]._replace(end=track.times[-1])
        return list(calls.values())


@dataclass(frozen=True)
class Figures:
    """How well the calls of many tracks match the truth."""

    f1: float
    delay: tuple[float, float]
    """Median and 95th percentile, in seconds."""
    calls: int


def measure(method: Method, labels: LabelSet, mapping: dict[str, str], tracks: Iterable[Track]) -> Figures:
    """Return a method's figures over tracks; ``mapping`` maps their labels to the label set's."""
    right = made = true = 0
    delays: list[float] = []
    for track in tracks:
        calls = method(labels, track)
        truth = _merged((mapping[data.LABELS[label]], start, end) for label, start, end in track.truth)
        made, true = made + len(calls), true + len(truth)
        for label, start, end in truth:
            found = _own(calls, label, start, end)
            if found is not None:
                right += 1
                delays.append(max(found.published - start, 0.0))
    median, most = np.percentile(delays, [50, 95]) if delays else (math.inf, math.inf)
    return Figures(2 * right / max(made + true, 1), (float(median), float(most)), made)


def apart(method: Method, labels: LabelSet, mapping: dict[str, str], tracks: Iterable[Track]) -> float:
    """Return the share, 0 to 1, of the smiles in tracks of `training.sequences.smiles` that have a correct call each.

    It is NaN if there are no smiles.
    """
    smile = data.LABELS.index("happy")
    own = [
        _own(calls, mapping["happy"], start, end) is not None
        for calls, truth in ((method(labels, track), track.truth) for track in tracks)
        for label, start, end in truth
        if label == smile
    ]
    return sum(own) / len(own) if own else math.nan


def _own(calls: Sequence[Call], label: str, start: float, end: float) -> Call | None:
    """Return the correct call for a true interval; at most one can overlap it by half."""
    return next((call for call in calls if call.label == label and _overlap(call, start, end) >= 0.5), None)


def _merged(truth: Iterable[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    found: list[tuple[str, float, float]] = []
    for label, start, end in truth:
        if found and found[-1][0] == label:
            found[-1] = (label, found[-1][1], end)
        else:
            found.append((label, start, end))
    return found


def _overlap(call: Call, start: float, end: float) -> float:
    common = min(call.end, end) - max(call.start, start)
    return max(common, 0.0) / (max(call.end, end) - min(call.start, start))


def _looks(labels: LabelSet, track: Track) -> list[Probabilities]:
    return [labels.project(Probabilities(labels.model_labels, tuple(row))) for row in track.scores.tolist()]


def pools(model: Path, faces: data.Faces) -> tuple[tuple[str, ...], Pool, Pool]:
    """Return a model's labels, and its scores of PublicTest's clear faces: half for fitting, half for reporting.

    Faces whose label the model does not have are left out.

    Raises:
        ModelError: the file breaks the contract, or has fewer than two of FER2013's labels.
    """
    classifier = OnnxClassifier(model)
    known = np.array([label in classifier.labels for label in data.LABELS])
    if known.sum() < 2:
        raise ModelError(f"{model} has fewer than two of FER2013's labels ({', '.join(data.LABELS)})")
    clear, labels = sequences.clear_faces(faces.split(data.PUBLIC))
    clear, labels = clear[known[labels]], labels[known[labels]]
    face = frame_face()

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        crops = [classifier.sample(np.repeat(image[..., None], 3, axis=2), face) for image in images]
        return classifier.run(np.stack(crops)).astype(np.float64)

    pool = sequences.make_pool(clear.images, labels, predict)
    half = np.random.default_rng(0).random(len(labels)) < 0.5
    return classifier.labels, pool[half], pool[~half]


def tracks_of(
    pool: Pool, rate: float, seeds: Sequence[int], count: int, script: Script = sequences.expressions
) -> list[Track]:
    """Return ``count`` tracks for each seed; ``rate`` in frames/s."""
    found = []
    for seed in seeds:
        random = np.random.default_rng([seed, round(rate)])
        found += [sequences.make_track(pool, rate, random, script) for _ in range(count)]
    return found


SETS = {"seven labels": "emotions", "valence": "valence"}


class Bench:
    """Tracks of every rate, and two label sets with the mapping of the true labels."""

    def __init__(self, names: tuple[str, ...], pool: Pool, seeds: Sequence[int], count: int) -> None:
        """Make ``count`` tracks for each seed and rate, from the scores of a model with the labels ``names``."""
        valence = Settings.model_construct().valence
        truths = {"emotions": {label: label for label in data.LABELS}, "valence": valence}
        self.sets = {name: (LabelSet(choice, names, valence), truths[choice]) for name, choice in SETS.items()}
        self.tracks = {rate: tracks_of(pool, rate, seeds, count) for rate in RATES}
        self._source = pool, seeds, count

    def figures(self, method: Method, name: str, rate: float | None = None) -> Figures:
        """Return a method's figures for one label set, at one rate or over all rates."""
        labels, truth = self.sets[name]
        return measure(method, labels, truth, self.tracks[rate] if rate else itertools.chain(*self.tracks.values()))

    @cached_property
    def smiles(self) -> list[Track]:
        """Tracks of all rates with short pauses between smiles; none if the pool has no happy or no neutral face."""
        pool, seeds, count = self._source
        if not {data.LABELS.index("happy"), data.LABELS.index("neutral")} <= set(pool.labels.tolist()):
            return []
        return [each for rate in RATES for each in tracks_of(pool, rate, seeds, count, sequences.smiles)]

    def apart(self, method: Method, name: str) -> float:
        """Return the share, 0 to 1, of the smiles with a short pause between them that have their own event.

        It is NaN if the pool has no happy or no neutral face.
        """
        return apart(method, *self.sets[name], self.smiles)

    def worth(self, method: Method) -> float:
        """Return the objective of `fit`: the mean F1, minus a penalty for delays above 0.5 s (median) and 1 s (95%)."""
        found = [self.figures(method, name) for name in SETS]
        late = [max(f.delay[0] - 0.5, 0) + 0.5 * max(f.delay[1] - 1.0, 0) for f in found]
        return float(np.mean([f.f1 for f in found]) - 0.5 * np.mean(late))


SEARCHED = {
    "tau": (0.07, 0.1, 0.15, 0.2, 0.3, 0.4),
    "stay": (2.0, 4.0, 8.0, 16.0),
    "enter": (0.5, 0.6, 0.65, 0.7, 0.75),
    "leave": (0.1, 0.2, 0.25, 0.3),
    "min_dwell": (0.0, 0.05, 0.1, 0.2),
    "patience": (0.3, 0.6, 1.0),
}


def fit(bench: Bench, markov: bool, tries: int, seed: int = 0) -> Smoothed:
    """Return the best result of a random search; its second half varies the best results so far."""
    random = np.random.default_rng(seed)
    found: list[tuple[float, dict[str, float]]] = []
    with tqdm(total=tries, disable=None, unit="try") as show:
        while len(found) < tries:
            if len(found) < tries // 2:
                values = {name: float(random.choice(choices)) for name, choices in SEARCHED.items()}
            else:
                values = dict(found[int(random.integers(min(5, len(found))))][1])
                name = str(random.choice(list(values)))
                values[name] = round(values[name] * float(random.choice([0.7, 0.85, 1.2, 1.4])), 3)
            if values["leave"] >= values["enter"] or values["enter"] >= 1:
                continue
            found.append((bench.worth(_smoothed(values, markov)), values))
            found.sort(key=lambda pair: -pair[0])
            show.update()
    return _smoothed(found[0][1], markov)


def _smoothed(values: dict[str, float], markov: bool) -> Smoothed:
    settings = {name: value for name, value in values.items() if name != "stay"}
    return Smoothed(SmootherSettings(**settings), values["stay"] if markov else None)


MARKOV = Smoothed(SmootherSettings(tau=0.07, enter=0.75, leave=0.1, min_dwell=0.05, patience=0.864), stay=1.96)
"""The result of `fit` for the hidden Markov filter (80 tries).

For the average the defaults of the settings are used. They were chosen among a few candidates around the result of
`fit`: the best F1 with a median delay of half a second, on the faces for fitting.
"""


def candidates() -> dict[str, Method]:
    """Return every method of the table by name."""
    return {
        "each frame's most probable label": argmax,
        f"majority of the last {WINDOW:g} s": majority,
        "hidden Markov filter, hysteresis": replace(MARKOV, weighted=False),
        "hidden Markov filter, hysteresis, quality": MARKOV,
        "exponential average, hysteresis": Smoothed(SmootherSettings(), weighted=False),
        "exponential average, hysteresis, quality (the default)": Smoothed(SmootherSettings()),
    }


def table(names: tuple[str, ...], pool: Pool, seeds: Sequence[int] = SEEDS, count: int = 10) -> str:
    """Return the figures of every method as Markdown, from the scores of a model with the labels ``names``.

    The last row is the default with a model that is never wrong. Its errors are caused by the tracks and the smoother.
    """
    real, ideal = Bench(names, pool, seeds, count), Bench(data.LABELS, sequences.perfect(pool), seeds, count)
    rows = [(real, title, method) for title, method in candidates().items()]
    rows.append((ideal, "the default, with a model that is never wrong", Smoothed(SmootherSettings())))
    lines = []
    for name in SETS:
        lines.append(
            f"| {name} | F1 | events, argmax's being 1 | delay, median | 95% below | median at 5, at 30 frames/s | "
            f"smiles {sequences.PAUSE} s apart |"
        )
        lines.append("|---|---|---|---|---|---|---|")
        most = {bench: bench.figures(argmax, name).calls for bench in (real, ideal)}
        for bench, title, method in rows:
            found = bench.figures(method, name)
            slow, fast = (bench.figures(method, name, rate).delay[0] for rate in (RATES[0], RATES[-1]))
            lines.append(
                f"| {title} | {found.f1:.2f} | 1/{most[bench] / found.calls:.1f} | {found.delay[0]:.2f} s | "
                f"{found.delay[1]:.2f} s | {slow:.2f} s, {fast:.2f} s | {bench.apart(method, name):.0%} |"
            )
        lines.append("")
    return "\n".join(lines)


def write(model: Path, fitted: SmootherSettings) -> Path:
    """Write smoother settings into a model's sidecar, and return its path; the rest of the sidecar stays.

    Raises:
        ConfigError: the sidecar cannot be read, changed or written.
    """
    sidecar = models.sidecar_of(model)
    own = SmootherContract(**fitted.model_dump(include=set(SmootherContract.model_fields)))
    try:
        text = sidecar.read_text(encoding="utf-8") if sidecar.exists() else ""
        sidecar.write_text(with_smoother(text, own), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{sidecar} cannot be written: {error.strerror}") from error
    return sidecar


def main() -> None:
    """Print the table, or search for settings."""
    parser = argparse.ArgumentParser(description="Compare smoothers on tracks with known ground truth.")
    parser.add_argument("model", type=Path, help="ONNX file")
    data.add_arguments(parser)
    parser.add_argument("--fit", type=int, metavar="TRIES", help="search for settings instead")
    parser.add_argument(
        "--write", action="store_true", help="write what --fit found into the model's sidecar, if it is better"
    )
    arguments = parser.parse_args()
    if arguments.write and not arguments.fit:
        parser.error("--write needs --fit")
    try:
        names, fitting, reporting = pools(arguments.model, data.load(arguments.data, arguments.plus))
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    if arguments.fit:
        bench = Bench(names, fitting, (10, 11), 4)
        for markov in (False,) if arguments.write else (False, True):
            found = fit(bench, markov, arguments.fit)
            print(f"{found}, worth {bench.worth(found):.3f}")
        if arguments.write:
            others = Bench(names, reporting, SEEDS, 10)
            fitted, default = others.worth(found), others.worth(Smoothed(SmootherSettings()))
            print(f"on faces that were not used for the fit they score {fitted:.3f}, the defaults {default:.3f}")
            if fitted <= default:
                print("the defaults are no worse: nothing is written")
                return
            try:
                print(f"written to {write(arguments.model, found.settings)}")
            except FerStreamError as error:
                raise SystemExit(str(error)) from error
    else:
        print(table(names, reporting))


if __name__ == "__main__":
    main()
