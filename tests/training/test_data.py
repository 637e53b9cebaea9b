"""Reading FER2013 and FER+, and the errors for other files."""

import sys

import cv2
import numpy as np
import pytest

from fer_stream.errors import SourceError
from training import data

HEADER = "emotion,pixels,Usage"
PLUS_HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def pixels(value):
    return " ".join([str(value)] * 48 * 48)


def write(path, *rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def csv(tmp_path):
    rows = [f"{i % 7},{pixels(i)},{'PublicTest' if i % 5 == 4 else 'Training'}" for i in range(20)]
    return write(tmp_path / "fer2013.csv", *rows)


def test_rows_become_arrays_in_their_order(csv):
    faces = data.load(csv)
    assert faces.images.dtype == np.uint8
    assert faces.images.shape == (20, 48, 48)
    np.testing.assert_array_equal(faces.images[:, 7, 9], np.arange(20))
    np.testing.assert_array_equal(faces.labels, np.arange(20) % 7)
    public = faces.split(data.PUBLIC)
    np.testing.assert_array_equal(public.rows, [4, 9, 14, 19])
    np.testing.assert_array_equal(public.images[:, 0, 0], [4, 9, 14, 19])
    np.testing.assert_array_equal(public.counts(), [1, 0, 1, 0, 1, 1, 0])


def votes(**counts):
    return [counts.get(name, 0) for name in data.VOTES]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        (votes(happiness=6, neutral=4), "happy"),
        (votes(happiness=5, neutral=5), None),
        (votes(anger=5, sadness=1, fear=1, disgust=1, neutral=2), "angry"),  # single votes are dropped: 5 of 7
        (votes(contempt=7, neutral=3), "contempt"),
        (votes(unknown=6, neutral=4), None),
        (votes(NF=10), None),
        (votes(happiness=1, sadness=1), None),
    ],
)
def test_ferplus_majority(row, label):
    index, clear = data.majority(np.array([row], np.uint8))
    assert bool(clear[0]) == (label is not None)
    if label:
        assert data.PLUS_EMOTIONS[index[0]] == label


def test_kaggles_other_version_is_read_too(tmp_path):
    faces = data.load(write(tmp_path / "icml.csv", f"3,Training,{pixels(9)}", header="emotion, Usage, pixels"))
    assert (faces.labels.item(), faces.usage.item(), faces.images.max()) == (3, "Training", 9)


def test_a_csv_is_parsed_once_and_again_when_it_changes(csv):
    data.load(csv)
    stored = dict(np.load(csv.with_suffix(".npz")))
    stored["labels"] = stored["labels"] * 0 + 6
    np.savez(csv.with_suffix(".npz"), **stored)
    assert set(data.load(csv).labels) == {6}  # from the cache

    write(csv, f"2,{pixels(1)},Training")
    assert data.load(csv).labels.tolist() == [2]

    whole = csv.with_suffix(".npz").read_bytes()
    for damaged in (b"damaged", whole[: len(whole) // 2]):
        csv.with_suffix(".npz").write_bytes(damaged)
        assert data.load(csv).labels.tolist() == [2]
    assert sorted(path.suffix for path in csv.parent.glob(f"{csv.stem}*")) == [".csv", ".npz"]


def test_votes_go_with_the_faces(csv, tmp_path):
    rows = [f"{'PublicTest' if i % 5 == 4 else 'Training'},x.png,{i % 10},0,0,0,0,0,0,0,,1" for i in range(20)]
    faces = data.load(csv, write(tmp_path / "plus.csv", *rows, header=PLUS_HEADER))
    assert faces.votes.shape == (20, 10)
    np.testing.assert_array_equal(faces.split(data.PUBLIC).votes[:, 0], [4, 9, 4, 9])
    assert set(faces.votes[:, 9]) == {1}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["PublicTest,x,1,0,0,0,0,0,0,0,0,0"], "line 2: its rows do not match those of the faces"),
        (["Training,x,1,0,0,0,0,0,0,0,0,0"], "has 1 rows for 20 faces"),
        (["Training,x,many,0,0,0,0,0,0,0,0,0"], "line 2: votes must be whole numbers"),
    ],
)
def test_votes_that_do_not_fit_are_refused(csv, tmp_path, rows, sentence):
    with pytest.raises(SourceError, match=sentence):
        data.load(csv, write(tmp_path / "plus.csv", *rows, header=PLUS_HEADER))


@pytest.mark.parametrize(
    ("rows", "header", "sentence"),
    [
        ([], HEADER, "has no rows"),
        ([f"0,{pixels(0)}"], "emotion,pixels", "has no column Usage: is it the right file"),
        ([f"7,{pixels(0)},Training"], HEADER, "line 2: emotion must be 0 to 6 and is '7'"),
        ([f"angry,{pixels(0)},Training"], HEADER, "line 2: emotion must be 0 to 6 and is 'angry'"),
        ([f"0,{pixels(0)},Training", "1,1 2 3,Training"], HEADER, "line 3: pixels must be 2304 numbers from 0 to 255"),
        ([f"0,{pixels(256)},Training"], HEADER, "line 2: pixels must be"),
        ([f"0,{pixels(-1)},Training"], HEADER, "line 2: pixels must be"),
        ([f"0,{pixels('x')},Training"], HEADER, "line 2: pixels must be"),
        ([f"0,{pixels(0)},"], HEADER, "line 2: Usage is missing"),
        (["0"], HEADER, "line 2: Usage is missing"),
    ],
)
def test_a_wrong_layout_is_named(tmp_path, rows, header, sentence):
    with pytest.raises(SourceError, match=sentence) as raised:
        data.load(write(tmp_path / "fer2013.csv", *rows, header=header))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "fer2013.npz").exists()


def test_binary_and_missing_files_are_reported(tmp_path):
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0" * 100)
    with pytest.raises(SourceError, match=r"picture\.csv is not a CSV file"):
        data.load(tmp_path / "picture.csv")
    with pytest.raises(SourceError, match=r"nowhere\.csv cannot be read: No such file"):
        data.load(tmp_path / "nowhere.csv")


def test_a_missing_split_is_reported(csv):
    with pytest.raises(SourceError, match="no PrivateTest faces in the data; it has PublicTest, Training"):
        data.load(csv).split("PrivateTest")


@pytest.mark.parametrize("splits", [{"train": "Training", "test": "PublicTest"}, {".": "Training"}])
def test_a_folder_per_class(tmp_path, splits):
    for folder in splits:
        for i, label in enumerate(data.LABELS):
            (tmp_path / folder / label).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / folder / label / "face.png"), np.full((96, 96, 3), 10 * i, np.uint8))
            (tmp_path / folder / label / "notes.txt").write_text("not a picture")
    faces = data.load(tmp_path)
    assert faces.images.shape == (7 * len(splits), 48, 48)
    for usage in splits.values():
        np.testing.assert_array_equal(faces.split(usage).labels, range(7))
        np.testing.assert_array_equal(faces.split(usage).images.max(axis=(1, 2)), 10 * np.arange(7))


def test_a_folder_without_faces_is_reported(tmp_path):
    with pytest.raises(SourceError, match="has no pictures in folders named angry"):
        data.load(tmp_path)
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad/face.png").write_text("not a picture")
    with pytest.raises(SourceError, match=r"sad/face\.png is not a picture"):
        data.load(tmp_path)
    with pytest.raises(SourceError, match=r"plus\.csv has the votes for fer2013\.csv"):
        data.load(tmp_path, tmp_path / "plus.csv")


def test_a_share_of_every_class_is_held_out():
    labels = np.repeat(np.arange(7), 20)
    count = len(labels)
    faces = data.Faces(np.zeros((count, 48, 48), np.uint8), labels, np.full(count, "Training"), np.arange(count))
    rest, out = faces.held_out(0.25, seed=3)
    assert out.counts().tolist() == [5] * 7
    assert sorted([*rest.rows, *out.rows]) == list(range(count))
    assert faces.held_out(0.25, seed=3)[1].rows.tolist() == out.rows.tolist()
    assert faces.held_out(0.25, seed=4)[1].rows.tolist() != out.rows.tolist()


def test_the_command_counts_and_draws(csv, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data", str(csv), "--output", str(tmp_path / "out")])
    data.main()
    text = capsys.readouterr().out
    assert [line.split()[1:] for line in text.splitlines()[1:3]] == [list("1010110"), list("2323222")]
    for name in ("classes.png", "samples.png"):
        assert cv2.imread(str(tmp_path / "out" / name)).std() > 1

    monkeypatch.setattr(sys, "argv", ["data", str(tmp_path / "nowhere.csv")])
    with pytest.raises(SystemExit, match="cannot be read"):
        data.main()


@pytest.fixture
def sheets(tmp_path):
    """Two sheets with 3 faces per row; the last tile has no row in ``labels.csv``."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (9, 48, 48), np.uint8)
    for number, part in enumerate((images[:6], images[6:])):
        tiles = part.reshape(-1, 3, 48, 48).transpose(0, 2, 1, 3).reshape(-1, 3 * 48)
        assert cv2.imwrite(str(tmp_path / f"faces-{number:02}.webp"), tiles, [cv2.IMWRITE_WEBP_QUALITY, 101])
    lines = ["row,Usage,emotion," + ",".join(f"ferplus_{name}" for name in data.VOTES)]
    lines += [f"{i},{'Training' if i < 5 else 'PublicTest'},{i % 7}," + ",".join("1" * 10) for i in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, images


def test_sheets_of_faces_are_read(sheets):
    folder, images = sheets
    faces = data.load(folder)
    np.testing.assert_array_equal(faces.images, images[:8])
    assert faces.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 0]
    assert faces.usage.tolist() == ["Training"] * 5 + ["PublicTest"] * 3
    assert faces.votes.shape == (8, 10)


def test_sheets_are_read_with_pillow_if_opencv_is_missing(sheets, monkeypatch):
    pytest.importorskip("PIL.Image")
    folder, images = sheets
    monkeypatch.setitem(sys.modules, "cv2", None)
    np.testing.assert_array_equal(data.load(folder).images, images[:8])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SourceError, match="reading pictures needs OpenCV or Pillow"):
        data.load(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("faces-01.webp", None, None, "has 6 faces in its sheets for 8 labels; is a sheet missing"),
        ("labels.csv", "0,Training,0", "0,Training,7", "line 2: emotion must be 0 to 6"),
        ("labels.csv", "ferplus_NF", "ferplus_nobody", "has no column ferplus_NF"),
    ],
)
def test_wrong_sheets_are_reported(sheets, name, old, new, sentence):
    path = sheets[0] / name
    path.unlink() if old is None else path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SourceError, match=sentence):
        data.load(sheets[0])


def test_a_sheet_that_cannot_be_split_into_tiles_is_reported(sheets):
    assert cv2.imwrite(str(sheets[0] / "faces-01.webp"), np.zeros((50, 48), np.uint8))
    with pytest.raises(SourceError, match="its sides are not multiples of 48 pixels"):
        data.load(sheets[0])
