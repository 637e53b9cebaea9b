"""FER2013, and FER+'s votes on it, as arrays; class counts and samples as pictures.

    python -m training.data data/fer2013.csv                               # class counts
    python -m training.data data/fer2013.csv --plus data/fer2013new.csv    # with the votes
    python -m training.data my_faces/                                      # a folder per class, see below
    python -m training.data data/fer2013.csv --output runs/data            # writes classes.png and samples.png there

Input formats:

- Kaggle's ``fer2013.csv``: columns emotion (0..6, in the order of `LABELS`), pixels (2304 numbers), Usage
- with it, Microsoft's ``fer2013new.csv``: ten people's votes for each row
- or a folder: ``SPLIT/LABEL/*.png``, where SPLIT is Training (or train) or PublicTest (or test); or ``LABEL/*.png``,
  where all faces are Training. Pictures (png, jpg, bmp) are converted to grey and 48x48.
- or a folder of sheets, a fifth of the CSV's size: ``labels.csv`` (Usage, emotion, and FER+'s votes as
  ``ferplus_neutral`` and so on) and ``faces-*.webp`` of 48x48 tiles, left to right and top to bottom, one for each row
  of ``labels.csv``.

A parsed CSV is cached as ``fer2013.npz`` beside it, and used until the CSV changes. The Training split is for training
(a part of it can be held out for tuning: ``holdout`` in a recipe); figures are reported on PublicTest.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_stream.errors import FerStreamError, SourceError
from fer_stream.types import EMOTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

LABELS = EMOTIONS
"""FER2013's seven labels, in its own order."""

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""FER+'s columns; the first eight are expressions, NF is "not a face"."""

PLUS_LABELS = VOTES[:8]

EMOTION_OF = {"anger": "angry", "happiness": "happy", "sadness": "sad"}
"""FER+'s names for which FER2013 uses another word."""

PLUS_EMOTIONS = tuple(EMOTION_OF.get(name, name) for name in PLUS_LABELS)
"""FER+'s eight labels in FER2013's words, in FER+'s order."""

SIDE = 48

TRAINING, PUBLIC = "Training", "PublicTest"
_FOLDERS = {"training": TRAINING, "train": TRAINING, "publictest": PUBLIC, "test": PUBLIC}
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Faces with their labels; row i of every array is the same face.

    ``images`` is uint8 ``[N, 48, 48]``, ``labels`` int64 ``[N]`` (an index into `LABELS`), ``usage`` ``[N]`` the name
    of the split, ``rows`` int64 ``[N]`` the row in the source, ``votes`` uint8 ``[N, 10]`` (see `VOTES`) or ``None``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    usage: NDArray[np.str_]
    rows: NDArray[np.int64]
    votes: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Faces:
        votes = None if self.votes is None else self.votes[index]
        return Faces(self.images[index], self.labels[index], self.usage[index], self.rows[index], votes)

    def split(self, usage: str) -> Faces:
        """Return the faces of one split.

        Raises:
            SourceError: there are none.
        """
        chosen = self[self.usage == usage]
        if not len(chosen):
            raise SourceError(f"there are no {usage} faces in the data; it has {', '.join(np.unique(self.usage))}")
        return chosen

    def held_out(self, share: float, seed: int) -> tuple[Faces, Faces]:
        """Return a random split in two: these faces without a share of every class, and that share."""
        order = np.random.default_rng(seed).permutation(len(self))
        out = np.zeros(len(self), bool)
        for label in range(len(LABELS)):
            members = order[self.labels[order] == label]
            out[members[: round(share * len(members))]] = True
        return self[~out], self[out]

    def digest(self) -> str:
        """Return a digest of the pictures, labels and votes, to detect other data."""
        digest = hashlib.sha256()
        for part in (self.images, self.labels, self.votes):
            if part is not None:
                digest.update(part.tobytes())
        return digest.hexdigest()

    def counts(self) -> NDArray[np.int64]:
        """Return the number of faces of each label, int64 ``[7]``."""
        return np.bincount(self.labels, minlength=len(LABELS))


def majority(votes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return FER+'s majority label of each face, and whether there is one.

    Votes are counted as FER+'s authors do (Barsoum et al. 2016, and their code): labels with a single vote are dropped,
    and the label must have more than half of the other votes. If the majority is "unknown" or "not a face", there is no
    label.

    Args:
        votes: uint8 ``[N, 10]``, see `VOTES`.

    Returns:
        Indices into `PLUS_EMOTIONS`, int64 ``[N]``; bool ``[N]``.
    """
    counted = np.where(votes > 1, votes, 0).astype(np.int64)
    label = counted.argmax(axis=1)
    clear = (2 * counted.max(axis=1) > counted.sum(axis=1)) & (label < len(PLUS_EMOTIONS))
    return label, clear


def labels_of(faces: Faces, labels: Sequence[str]) -> NDArray[np.int64]:
    """Return each face's index into `LABELS` or `PLUS_EMOTIONS`, int64 ``[N]``; -1 for a face without such a label.

    Raises:
        SourceError: the labels are FER+'s, and there are no votes.
    """
    if tuple(labels) == LABELS:
        return faces.labels
    if faces.votes is None:
        raise SourceError("FER+'s labels are not in the data: give its file with --plus")
    label, clear = majority(faces.votes)
    return np.where(clear, label, -1)


def truth(faces: Faces, labels: Sequence[str]) -> tuple[Faces, NDArray[np.int64]]:
    """Return the faces that have a label of `LABELS` or `PLUS_EMOTIONS`, and their indices, int64 ``[N]``.

    Raises:
        SourceError: the labels are FER+'s, and there are no votes.
    """
    label = labels_of(faces, labels)
    has = label >= 0
    return (faces, label) if has.all() else (faces[has], label[has])


def load(path: Path, plus: Path | None = None) -> Faces:
    """Return the faces in a CSV file or a folder, in its order, with FER+'s votes if their file is given.

    Raises:
        SourceError: a file is missing or does not have the layout above; the message names the file and line.
    """
    if path.is_dir():
        if plus is None and (path / "labels.csv").is_file():
            return _read_sheets(path)
        if plus is not None:
            raise SourceError(f"{plus} has the votes for fer2013.csv, not for the pictures in {path}")
        return _read_folder(path)
    faces = _cached(path)
    return faces if plus is None else _with_votes(faces, plus)


def _cached(path: Path) -> Faces:
    cache, stamp = path.with_suffix(".npz"), _stamp(path)
    try:
        with cache.open("rb") as file, np.load(file) as stored:
            if str(stored["stamp"]) == stamp:
                return Faces(stored["images"], stored["labels"], stored["usage"], stored["rows"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # missing or invalid: it is written below
    faces = _read_csv(path)
    draft = cache.with_suffix(".draft.npz")
    try:
        np.savez(draft, stamp=stamp, images=faces.images, labels=faces.labels, usage=faces.usage, rows=faces.rows)
        draft.replace(cache)
    except OSError as error:
        print(f"{cache} cannot be written ({error.strerror}); {path} will be parsed again next time", file=sys.stderr)
    return faces


def _stamp(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; training/README.md says how to get it") from error
    return f"1 {state.st_size} {state.st_mtime_ns}"


def _rows(path: Path, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield ``(line, row)`` of a CSV file that must have some columns."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, skipinitialspace=True)  # one of Kaggle's versions has ", " in its header
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise SourceError(f"{path} has no column {', '.join(missing)}: is it the right file?")
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}; training/README.md says how to get it") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} is not a CSV file: {error}") from error


def _read_csv(path: Path) -> Faces:
    images, labels, usage = [], [], []
    for line, row in _rows(path, "emotion", "pixels", "Usage"):
        if row["emotion"] not in set("0123456"):
            raise SourceError(f"{path}, line {line}: emotion must be 0 to 6 and is {row['emotion']!r}")
        if not row["Usage"]:
            raise SourceError(f"{path}, line {line}: Usage is missing")
        images.append(_pixels(row["pixels"] or "", f"{path}, line {line}"))
        labels.append(int(row["emotion"]))
        usage.append(row["Usage"])
    if not images:
        raise SourceError(f"{path} has no rows")
    return Faces(np.stack(images), np.array(labels), np.array(usage), np.arange(len(labels)))


def _pixels(text: str, where: str) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy's signal for text that is not a number
            values = np.fromstring(text, np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        values = np.empty(0, np.int64)
    if values.size != SIDE * SIDE or values.min() < 0 or values.max() > 255:
        raise SourceError(f"{where}: pixels must be {SIDE * SIDE} numbers from 0 to 255")
    return values.astype(np.uint8).reshape(SIDE, SIDE)


def _with_votes(faces: Faces, plus: Path) -> Faces:
    votes = np.zeros((len(faces), len(VOTES)), np.uint8)
    count = 0
    for line, row in _rows(plus, "Usage", *VOTES):
        if count == len(faces) or row["Usage"] != faces.usage[count]:
            raise SourceError(f"{plus}, line {line}: its rows do not match those of the faces; is one file older?")
        try:
            votes[count] = [int(row[name] or 0) for name in VOTES]
        except (ValueError, OverflowError) as error:
            raise SourceError(f"{plus}, line {line}: votes must be whole numbers from 0 to 10") from error
        count += 1
    if count < len(faces):
        raise SourceError(f"{plus} has {count} rows for {len(faces)} faces; it must have one for each")
    return Faces(faces.images, faces.labels, faces.usage, faces.rows, votes)


def _read_sheets(root: Path) -> Faces:
    labels, usage, votes = [], [], []
    for line, row in _rows(root / "labels.csv", "Usage", "emotion", *(f"ferplus_{name}" for name in VOTES)):
        try:
            labels.append(range(len(LABELS)).index(int(row["emotion"])))
            votes.append([int(row[f"ferplus_{name}"]) for name in VOTES])
        except (TypeError, ValueError) as error:
            raise SourceError(
                f"{root / 'labels.csv'}, line {line}: emotion must be 0 to 6, and votes whole numbers"
            ) from error
        usage.append(row["Usage"])
    images = []
    for path in sorted(root.glob("faces-*.webp")):
        sheet = _grey(path)
        if sheet.shape[0] % SIDE or sheet.shape[1] % SIDE:
            raise SourceError(f"{path} is not a sheet of faces: its sides are not multiples of {SIDE} pixels")
        tiles = sheet.reshape(-1, SIDE, sheet.shape[1] // SIDE, SIDE).transpose(0, 2, 1, 3)
        images.append(tiles.reshape(-1, SIDE, SIDE))
    count = sum(map(len, images))
    if not labels or count < len(labels):
        raise SourceError(f"{root} has {count} faces in its sheets for {len(labels)} labels; is a sheet missing?")
    return Faces(
        np.concatenate(images)[: len(labels)],
        np.array(labels),
        np.array(usage),
        np.arange(len(labels)),
        np.array(votes, np.uint8),
    )


def _grey(path: Path) -> NDArray[np.uint8]:
    """Return a picture in grey, read with OpenCV or, if that is not installed, with Pillow."""
    try:
        import cv2  # noqa: PLC0415 - a campaign's machine may have only Pillow
    except ImportError:
        try:
            from PIL import Image  # noqa: PLC0415
        except ImportError:
            raise SourceError(f"{path}: reading pictures needs OpenCV or Pillow; or unpack them to a .csv") from None
        try:
            with Image.open(path) as picture:
                return np.asarray(picture.convert("L"))
        except OSError as error:
            raise SourceError(f"{path} is not a picture") from error
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise SourceError(f"{path} is not a picture")
    return image.astype(np.uint8, copy=False)


def _read_folder(root: Path) -> Faces:
    import cv2  # noqa: PLC0415 - a campaign's machine may lack it; its data need no resizing

    splits = {
        folder: _FOLDERS[folder.name.lower()] for folder in sorted(root.iterdir()) if folder.name.lower() in _FOLDERS
    }
    images, labels, usage = [], [], []
    for folder, split in (splits or {root: TRAINING}).items():
        for index, label in enumerate(LABELS):
            for path in sorted((folder / label).glob("*")):
                if path.suffix.lower() not in _SUFFIXES:
                    continue
                images.append(cv2.resize(_grey(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
                labels.append(index)
                usage.append(split)
    if not images:
        raise SourceError(f"{root} has no pictures in folders named {', '.join(LABELS)}")
    return Faces(np.stack(images).astype(np.uint8), np.array(labels), np.array(usage), np.arange(len(labels)))


def add_arguments(parser: argparse.ArgumentParser, plus: bool = True) -> None:
    """Add the arguments for the data's files: ``data`` and, if ``plus``, ``--plus`` for the votes."""
    parser.add_argument("data", type=Path, help="Kaggle's fer2013.csv, a folder per class, or a folder of sheets")
    if plus:
        parser.add_argument("--plus", type=Path, help="FERPlus' fer2013new.csv")


def main() -> None:
    """Print class counts, and draw them and a sample of each class."""
    from training import pictures  # noqa: PLC0415 - matplotlib is slow to import, and only this command draws

    parser = argparse.ArgumentParser(description="Show what is in the data.")
    add_arguments(parser)
    parser.add_argument("--output", type=Path, default=Path("runs/data"), help="folder for the pictures")
    arguments = parser.parse_args()
    try:
        faces = load(arguments.data, arguments.plus)
    except FerStreamError as error:
        raise SystemExit(str(error)) from error

    arguments.output.mkdir(parents=True, exist_ok=True)
    counts = {str(usage): faces.split(usage).counts() for usage in np.unique(faces.usage)}
    print(f"{'':12}" + "".join(f"{label:>10}" for label in LABELS))
    for usage, row in counts.items():
        print(f"{usage:12}" + "".join(f"{count:10,}" for count in row))
    if faces.votes is not None:
        expressions = faces.votes[:, : len(PLUS_LABELS)]
        clear = expressions.max(axis=1) > faces.votes.sum(axis=1) / 2
        most = np.array(PLUS_EMOTIONS)[expressions.argmax(axis=1)]
        agree = most[clear] == np.array(LABELS)[faces.labels[clear]]
        print(f"FER+: most people agree on one expression for {clear.mean():.1%} of the faces; "
              f"for {agree.mean():.1%} of these it is FER2013's label")  # fmt: skip
    pictures.bars(arguments.output / "classes.png", LABELS, counts, "faces")
    sample = np.random.default_rng(0).permutation(len(faces))
    rows = {label: faces.images[sample[faces.labels[sample] == i][:12]] for i, label in enumerate(LABELS)}
    pictures.sheet(arguments.output / "samples.png", rows)
    print(f"pictures: {arguments.output / 'classes.png'}, {arguments.output / 'samples.png'}")


if __name__ == "__main__":
    main()
