"""Fuzz targets: one function for each decoder of untrusted bytes, with seed inputs.

Each takes any bytes and checks one invariant: the decoder parses them, or raises its documented error. `test_fuzz`
tries a few thousand mutated inputs for each target in ``make test-long``; ``make fuzz`` tries a million, guided by
coverage (``python tests/fuzz/guided.py TARGET``).
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import struct
import tempfile
import zlib
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import onnx
from tiny import write_model

from fer_stream import plugins
from fer_stream.aggregator.aggregator import Aggregator
from fer_stream.aggregator.membership import Alone
from fer_stream.aggregator.roster import Answers, Camera, Worker
from fer_stream.client.state import places
from fer_stream.errors import ConfigError, JournalError, ModelError, SourceError, WireError
from fer_stream.events import cloudevents
from fer_stream.events.cursor import to_cursor, to_numbers
from fer_stream.fleet import answers, nodes, values
from fer_stream.fleet.records import Moved, Place, Status, Welcome
from fer_stream.imaging.jpeg import Jpeg, header_size
from fer_stream.imaging.limits import check_size
from fer_stream.inference import models
from fer_stream.inference.classifiers import contract
from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.journal.sqlite import Reader, Writer
from fer_stream.operations import metrics
from fer_stream.protocol import messages, results, shared
from fer_stream.protocol.messages import Encoding, Kind, Message, Totals
from fer_stream.protocol.results import Result
from fer_stream.service import cell as cells
from fer_stream.service.commands import entry as entry_of
from fer_stream.service.supervisor import CameraState
from fer_stream.settings import tree
from fer_stream.settings.tree import CameraSettings, JournalSettings, Settings
from fer_stream.sources import local
from fer_stream.sources.media import open_source
from fer_stream.transports import keys
from fer_stream.types import (
    EMOTIONS,
    THUMBNAIL,
    Box,
    CameraData,
    Event,
    EventType,
    Expected,
    ExpressionData,
    Face,
    FaceData,
    Hints,
    LineData,
    Measure,
    Measures,
    Nanoseconds,
    Probabilities,
    Probability,
    Searched,
    ZoneData,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_READER = shared.MappedFrames()
_MEMORY = Path("/dev/shm")


class Target(NamedTuple):
    """One decoder: the check of one input, the seed inputs, and the number of inputs to try."""

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    examples: int = 10_000
    """Number of inputs in ``make test-long``."""


@cache
def _folder() -> Path:
    """Return a folder for decoders that read files, in memory if possible."""
    kept = tempfile.TemporaryDirectory(prefix="fer-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
    _kept.append(kept)
    return Path(kept.name)


_kept: list[Any] = []


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


# Messages


def message(data: bytes) -> None:
    """A header and a payload. Every second input gets valid checksums; otherwise no later check would be reached."""
    sealed, data = data[:1] > b"\x7f", data[1:]
    head, payload = data[: messages.HEADER_SIZE], data[messages.HEADER_SIZE :]
    if sealed and len(head) == messages.HEADER_SIZE:
        head = head[:-12] + struct.pack("!II", len(payload), zlib.crc32(payload))
        head += struct.pack("!I", zlib.crc32(head))
    with suppress(WireError):
        found = messages.unpack([head, payload])
        assert messages.unpack([bytes(part) for part in messages.pack(found)]) == found
        if found.kind is Kind.FRAME and found.encoding is not Encoding.SHARED:
            assert _READER.picture(found).shape == (found.height, found.width, 3)
        elif found.kind is not Kind.FRAME:
            assert isinstance(found.body(), dict)


def _messages() -> list[bytes]:
    found = [Message(kind, b'{"a":1}', seq=1, totals=Totals(3, 1, 1, 1)) for kind in Kind if kind is not Kind.FRAME]
    found.append(Message(Kind.FRAME, bytes(12), width=2, height=2, encoding=Encoding.RAW))
    found.append(Message(Kind.FRAME, _jpegs()[0], width=16, height=8, encoding=Encoding.JPEG))
    return [b"\xff" + b"".join(map(bytes, messages.pack(example))) for example in found]


def hello(data: bytes) -> None:
    """The body of a capture's HELLO."""
    with suppress(WireError):
        Camera.from_hello(b"peer", Message(Kind.HELLO, data, totals=Totals(9, 0, 0, 9)), 0.0)


HELLO = {
    "camera": "door", "incarnation": "a", "pid": 1, "policy": "wait", "live": True, "frames": None, "rate": 0.1,
    "reported": {"done": 1}, "memory": "", "moves": True, "zones": {"till": [[0, 0], [0.5, 0], [0.5, 1]]},
    "lines": {"door": {"points": [[0.5, 0], [0.5, 1]], "to_right": "in", "to_left": "out"}},
}  # fmt: skip


def ready(data: bytes) -> None:
    """The body of a worker's READY."""
    with suppress(WireError):
        body = Message(Kind.READY, data).body()
        Worker.from_ready(body)
        found = Answers.from_ready(body)
        Settings.model_construct().smoother.with_model(found.smoother)


def answer(data: bytes) -> None:
    """The body of an aggregator's WELCOME or MOVED."""
    with suppress(WireError):
        body = Message(Kind.MOVED, data).body()
        for read in (answers.welcome, answers.moved):
            with suppress(WireError):
                found = read(body)
                assert found is None or read(json.loads(json.dumps(answers.to_body(found)))) == found


def _answers() -> list[bytes]:
    places = Place("tcp://192.0.2.1:5550", "k" * 40), Place("ipc:///run/a")
    made = (Welcome(places), Moved(places[0], others=places), Moved(None, 0.25))
    return [json.dumps(answers.to_body(one)).encode() for one in made]


READY = {
    "labels": EMOTIONS,
    "name": "1",
    "host": "here",
    "pid": 1,
    "model": "m",
    "detector": "d",
    "memory": "",
    "moves": True,
}


_OWN = {"measures": {"valence": [-1, 1]}, "smoother": {"tau": 0.4, "enter": 0.7}}


def hints(data: bytes) -> None:
    """Hints for a worker, with a valid checksum."""
    with suppress(WireError):
        found = results.unpack_hints(struct.pack("!I", zlib.crc32(data)) + data)
        assert len(results.unpack_hints(results.pack_hints(found)).faces) == len(found.faces)


def _hints() -> list[bytes]:
    faces = (Expected(Box(1, 2, 30, 40), due=True), Expected(Box(5, 5, 9, 9), due=False))
    seen = np.zeros(THUMBNAIL, np.uint8)
    return [results.pack_hints(made)[4:] for made in (Hints(), Hints(faces, whole=True), Hints(faces, seen=seen))]


def faces(data: bytes) -> None:
    """A worker's result."""
    with suppress(WireError):
        found = results.unpack_faces(data, EMOTIONS)
        assert len(results.unpack_faces(results.pack_faces(found, EMOTIONS), EMOTIONS).faces) == len(found.faces)


def _faces() -> list[bytes]:
    face = Face(Box(1, 2, 3, 4), 0.9, ((1.0, 2.0),) * 5, Probabilities(EMOTIONS, (0.4, *[0.1] * 6)), 0.5)
    searched = Searched(np.ones(THUMBNAIL, np.bool_), np.zeros(THUMBNAIL, np.uint8))
    made = (Result(()), Result((face, Face(Box(1, 2, 3, 4), 0.9))), Result((face,), searched=searched))
    return [results.pack_faces(one, EMOTIONS) for one in made]


MEASURES = (Measure("valence", -1, 1), Measure("smile", 0, 5))


def measures(data: bytes) -> None:
    """A result of a worker whose model has measures, with labels and without."""
    for labels in (EMOTIONS, ()):
        with suppress(WireError):
            found = results.unpack_faces(data, labels, MEASURES).faces
            again = results.unpack_faces(results.pack_faces(Result(found), labels, MEASURES), labels, MEASURES).faces
            assert again == found
            for each in (face.measures for face in found if face.probabilities):
                assert each is not None
                for measure, value in zip(MEASURES, each.values, strict=True):
                    assert measure.least <= value <= measure.greatest


def _measures() -> list[bytes]:
    levels = Measures(("valence", "smile"), (-0.5, 5.0))
    made = []
    for labels, shares in ((EMOTIONS, (0.4, *[0.1] * 6)), ((), ())):
        face = Face(Box(1, 2, 3, 4), 0.9, ((1.0, 2.0),) * 5, Probabilities(labels, shares), 0.5, levels)
        result = Result((face, Face(Box(1, 2, 3, 4), 0.9)))
        made.append(results.pack_faces(result, labels, MEASURES))
    return made


def descriptor(data: bytes) -> None:
    """The descriptor of a frame in shared memory."""
    frame = Message(Kind.FRAME, data, height=8, width=16, encoding=Encoding.SHARED)
    with suppress(WireError):
        assert _reader.view(frame).shape == (8 * 16 * 3,)
        _reader.intact(frame)


_reader = shared.MappedFrames()


@cache
def _ring() -> tuple[shared.Ring, list[bytes]]:
    ring = shared.Ring(2, 8 * 16 * 3)
    return ring, [ring.put(np.zeros((8, 16, 3), np.uint8), slot, slot + 1) for slot in range(2)]


def cursor(data: bytes) -> None:
    """A cursor, from a user or from an aggregator."""
    text = data.decode(errors="replace")
    with suppress(ValueError):
        numbers = to_numbers(text)
        assert 1 <= len(numbers) <= 256
        assert to_cursor(*numbers) == text


def status(data: bytes) -> None:
    """A cell's aggregators, in the body of a STATUS."""
    with suppress(WireError):
        for name, address in places(Message(Kind.STATUS, data).body()).items():
            assert isinstance(name, str)
            assert isinstance(address, str)


def _statuses() -> list[bytes]:
    places_ = {"a": {"address": "tcp://192.0.2.1:5550", "key": ""}, "b": {"address": "ipc:///run/b", "key": "k" * 40}}
    return [json.dumps({"fleet": fleet}).encode() for fleet in (None, {"aggregators": places_}, {"aggregators": {}})]


# The aggregator as a whole: a peer with a key may send any messages in any order

_SAYING = struct.Struct("!BBBBH")
_SAYINGS = (
    ("frames", Kind.HELLO), ("frames", Kind.OFFER), ("frames", Kind.FRAME), ("frames", Kind.BYE), ("work", Kind.READY),
    ("work", Kind.DONE), ("work", Kind.REJECT), ("work", Kind.PING), ("work", Kind.BYE), ("control", Kind.STATUS),
    ("control", Kind.REPLAY), ("control", Kind.EVENTS), ("work", Kind.FRAME), ("frames", Kind.DONE),
)  # fmt: skip
_numbers = itertools.count()


def aggregator(data: bytes) -> None:
    """A few messages of a capture, a worker and a client: each is accepted, or counted as rejected."""
    for path in _folder().glob("fuzz.db*"):
        path.unlink(missing_ok=True)
    address, path = f"memory://fuzz-{next(_numbers)}", _folder() / "fuzz.db"
    transport = plugins.load("transports", "memory")()
    hub, journal = transport.bind(address), plugins.journal(JournalSettings(path=path)).writer()
    peers = {link: transport.connect(address, link) for link in plugins.LINKS}
    settings = Settings(transport="memory", address=address, journal=JournalSettings(path=path))
    try:
        it = Aggregator(settings, hub, Alone(journal))
        for _ in range(12):
            if len(data) < _SAYING.size:
                break
            which, seq, ticket, sent, length = _SAYING.unpack_from(data)
            link, kind = _SAYINGS[which % len(_SAYINGS)]
            payload, data = data[_SAYING.size : _SAYING.size + length], data[_SAYING.size + length :]
            sending = Message(kind, payload, seq=seq, ticket=ticket, time=seq * 10**9, totals=Totals(sent, 0, 0, sent))
            if kind is Kind.FRAME:
                sending = Message(
                    kind, payload[:3].ljust(3), 0, seq, ticket, seq * 10**9, 0, sending.totals, 1, 1, Encoding.RAW
                )
            peers[link].send(messages.pack(sending))
            with suppress(ConfigError):  # the aggregator ends if the first worker's labels do not match its settings
                it.turn(0)
            for peer in peers.values():
                while (parts := peer.receive(0)) is not None:
                    messages.unpack(parts[:2])
        json.dumps(it.status())
    finally:
        for peer in peers.values():
            peer.close()
        hub.close()
        journal.close()
        for counted in (metrics.frames, metrics.in_flight, metrics.waiting, metrics.camera_online, metrics.tracks):
            counted.clear()
        for timed in (metrics.frame_age, metrics.latency, metrics.faces, metrics.events):
            timed.clear()


def _conversations() -> list[bytes]:
    def say(link: str, kind: Kind, payload: bytes = b"", seq: int = 0, ticket: int = 0, sent: int = 0) -> bytes:
        return _SAYING.pack(_SAYINGS.index((link, kind)), seq, ticket, sent, len(payload)) + payload

    hello, ready = json.dumps(HELLO | {"reported": {}}).encode(), json.dumps(READY).encode()
    body = [
        say("work", Kind.READY, ready),
        say("frames", Kind.HELLO, hello),
        say("frames", Kind.OFFER, b'{"full":true}', sent=0),
        say("frames", Kind.FRAME, b"abc", seq=1, sent=1),
    ]
    answers = [say("work", Kind.DONE, _faces()[n], ticket=1) for n in (0, 2)]
    replay = say("control", Kind.REPLAY, b'{"after":0,"camera":"door","partition":0}') + say("control", Kind.STATUS)
    leave = say("frames", Kind.BYE, b'{"reason":"end of stream"}', sent=1)
    return [b"".join(body) + answer + replay + leave for answer in answers]


# Events and the journal


def event(data: bytes) -> None:
    """An event's text, as from an aggregator or a journal."""
    with suppress(WireError):
        found = cloudevents.decode(data)
        assert cloudevents.decode(cloudevents.encode(found)).type == found.type


def _event_list() -> list[Event]:
    at, shared_fields = Nanoseconds(10**18), {"epoch": 1, "frame": 7}
    share = Probability(0.9, 0.95)
    expression = ExpressionData(at, None, 1, "happy", None, share, {"happy": 0.9, "sad": 0.1}, Box(1, 2, 3, 4), 0.9)
    return [
        Event(EventType.FACE_ENTERED, "door", **shared_fields, track=1, time=at, data=_face_data(at)),
        Event(EventType.EMOTION_STARTED, "door", **shared_fields, track=1, time=at, data=expression),
        Event(EventType.ZONE_ENTERED, "door", **shared_fields, track=1, time=at, data=_visit(at)),
        Event(EventType.LINE_CROSSED, "door", **shared_fields, track=1, time=at, data=_crossing()),
        Event(EventType.CAMERA_ONLINE, "door", **shared_fields, track=0, time=at, data=_online()),
    ]


def _visit(at: Nanoseconds) -> ZoneData:
    return ZoneData("till", at, None, 1, Box(1, 2, 3, 4), 0.9)


def _crossing() -> LineData:
    return LineData("door", "in", Box(1, 2, 3, 4), 0.9)


def _online() -> CameraData:
    places = CameraSettings(zones=HELLO["zones"], lines=HELLO["lines"]).places
    return CameraData("first frame", 640, 480, zones=places.zones, lines=places.lines)


def _face_data(at: Nanoseconds) -> FaceData:
    return FaceData(at, None, 1, Box(1, 2, 3, 4), 0.9)


def journal(data: bytes) -> None:
    """A journal file: a reader reads it, and an aggregator's writer opens it."""
    for path in _folder().glob("read.db*"):
        path.unlink(missing_ok=True)
    path = _file("read.db", data)
    with suppress(JournalError), Reader(path) as reader:
        reader.cursor()
        for camera in (None, "door"):
            for text in reader.read(0, 10, camera)[0]:
                assert isinstance(text, str)
    with suppress(JournalError):
        writer = Writer(path)
        try:
            writer.unclosed()
            assert 0 < writer.epoch("door") < 2**32
            writer.append(_event_list())
            writer.purge(1.0)
        finally:
            writer.close()


_STRANGE = (
    "", "DELETE FROM head", "UPDATE head SET cursor = 'x'", "UPDATE head SET purged = x'ff', cursor = 9e99",
    "UPDATE events SET text = x'ff'", "UPDATE events SET text = '{}'", "UPDATE events SET cursor = -cursor",
    "UPDATE cameras SET sequence = 'x'", "UPDATE cameras SET epoch = 'x'",
    "UPDATE cameras SET epoch = 9223372036854775807", "UPDATE cameras SET camera = x'ff'", "DROP TABLE cameras",
    "DROP TABLE events", "UPDATE head SET cursor = 9223372036854775807",
    "UPDATE cameras SET sequence = 9223372036854775807", "ALTER TABLE events DROP COLUMN text",
    "INSERT INTO events SELECT 7, '', 'door', 1, 2, 9, 'x', crc, replace(text, 'started', 'reset') FROM events LIMIT 1",
    "UPDATE events SET journaled = 'x'", "UPDATE events SET crc = 'x'", "PRAGMA user_version = 1",
    "PRAGMA writable_schema = 1; UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT), sql = 'x' WHERE name = 'head'",
)  # fmt: skip
"""Statements that make a journal's content invalid; randomly changed bytes seldom pass SQLite's own checks."""


def _journals() -> list[bytes]:
    found = []
    for number, statement in enumerate(_STRANGE):
        path = _folder() / f"seed-{number}.db"
        made = Writer(path)
        made.epoch("door")
        made.append(_event_list())
        made.close()
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.executescript(statement)
        found.append(path.read_bytes())
    return [*found, b"", b"SQLite format 3\0" + bytes(100)]


# Settings and keys


def settings(data: bytes) -> None:
    """A settings file: TOML, and its values."""
    for name in ("settings.toml", "settings.json"):
        with suppress(ConfigError):
            tree.explain(file=_file(name, data)).lines()


def _settings() -> list[bytes]:
    text = '[cameras.door]\nsource = "0"\nmasks = [[0.0, 0.0, 0.5, 1.0]]\nrate = 5\n[journal]\nretention_days = 3\n'
    return [
        text.encode(),
        b"labels = 'valence'\n[valence]\nhappy = 'positive'\n",
        Settings().model_dump_json().encode(),
    ]


def environment(data: bytes) -> None:
    """Environment variables of fer_stream, one per line."""
    before = dict(os.environ)
    try:
        for line in data.decode("utf-8", "surrogateescape").replace("\0", "").splitlines()[:8]:
            name, equals, value = line.partition("=")
            if equals and name.isprintable():
                with suppress(UnicodeEncodeError):  # such a variable cannot be set for a process
                    os.environ["FER_STREAM_" + name] = value
        with suppress(ConfigError):
            tree.load()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _variables() -> list[bytes]:
    return [b'LABELS=valence\nWORKERS=2\nCAMERAS={"a":{"source":"0"}}\nSINKS=["stdout:"]\nJOURNAL__PATH=/tmp/x']


def key(data: bytes) -> None:
    """Key files, and the list of allowed keys."""
    path = _file("a.key", data)
    with suppress(ConfigError):
        keys.load(path)
    for name, read in (("server.key", keys.server), ("allowed.json", keys.entries)):
        _file(name, data)
        with suppress(ConfigError):
            read(_folder())
        assert keys.AllowList(_folder()).may("?" * 40, "frames") in (False, True)
        (_folder() / name).unlink()


def _keys() -> list[bytes]:
    folder = _folder() / "keys"
    keys.new(folder, "door", "capture")
    return [(folder / name).read_bytes() for name in ("door.key", "server.key", "allowed.json")]


def cell(data: bytes) -> None:
    """The values that nodes, operators and aggregators of a cell share, each of which another program may write."""
    text = data.decode(errors="replace")
    beat = nodes.decode(text)
    assert beat is None or nodes.decode(nodes.encode(beat)) == beat
    entry = keys.decode("door", text)
    assert entry is None or keys.decode("door", keys.encode(entry)) == entry
    states = cells.decode_states(text)
    assert cells.decode_states(cells.encode_states(states)).keys() == states.keys()
    for name, state in states.items():
        entry_of(name, state, "registry", {})
    for read in (values.decode_status, values.decode_part, values.decode_mark):
        read(text)
    with suppress(ConfigError):
        local(tree.cameras({"door": cells.decode(text)})["door"])


def _cell() -> list[bytes]:
    state = CameraState("online", 1.8e9, "")
    texts = (
        nodes.encode(nodes.Beat("a-1", 100.25, 7, 2.5, 3)),
        keys.encode(keys.Entry("door", "capture", "x" * 40, ("door", "yard"))),
        cells.encode_states({"door": state, "yard": state}),
        values.encode_status(3, Status(Place("tcp://h:1", "k" * 40), 2.0, 1, 1)),
        json.dumps({"source": "rtsp://user:file:/run/door@192.0.2.10/", "rate": 5.0, "machine": "*"}),
        json.dumps({"source": "0", "masks": [[0, 0, 0.5, 0.5]]}),
    )
    return [text.encode() for text in texts]


# Models and pictures


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field of protocol buffers."""
    length, size = b"", len(data)
    while True:
        size, low = size >> 7, size & 0x7F
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([number << 3 | 2]) + length + data


def metadata(data: bytes) -> None:
    """The metadata of an ONNX file, such as labels and crop: keys and values, separated by zeros."""
    parts = data.split(b"\0")[:20]
    pairs = zip(parts[::2], parts[1::2], strict=False)
    # ModelProto.metadata_props: fields appended to a serialized message are merged into it.
    props = b"".join(_field(14, _field(1, name) + _field(2, value)) for name, value in pairs)
    with suppress(ModelError):
        found = OnnxClassifier(_file("model.onnx", _bare_model() + props))
        assert len(found.labels) == len(EMOTIONS)


@cache
def _bare_model() -> bytes:
    model = onnx.load(str(write_model(_folder() / "bare.onnx")))
    del model.metadata_props[:]
    return model.SerializeToString()


def _metadata() -> list[bytes]:
    said = {"labels": json.dumps(EMOTIONS), "crop": '{"x": 0.0, "y": 0.0, "side": 1.0}', "version": "1"}
    pairs = (said | {"license": "MIT", "trained_on": "nothing"}).items()
    return [b"\0".join(text.encode() for pair in pairs for text in pair)]


def sidecar(data: bytes) -> None:
    """A sidecar: what of it is valid is written, and read again as the same."""
    bare = models.load(_file("bare.onnx", _bare_model()))
    with suppress(UnicodeDecodeError):  # `models.load` refuses it
        said, breaches, faulty = contract.read(replace(bare, sidecar=data.decode()))
        assert bool(breaches) == bool(faulty)
        again, none, _ = contract.read(replace(bare, sidecar=contract.write(said, "bare.onnx")))
        assert (again, none) == (said, [])


def _sidecars() -> list[bytes]:
    whole = """version = "1"
license = "MIT"
trained_on = "nothing"
[input]
layout = "NHWC"
channels = "RGB"
size = [64, 64]
batch = 4
scale = 0.5
mean = [0.5, 0.4, 0.3]
std = 0.25
[labels]
output = "scores"
columns = [0, 2]
values = "logits"
names = ["happy", "sad"]
[crop]
points = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]]
x = 0.1
side = 1.2
[smoother]
tau = 0.4
patience = 2.0
[measures.valence]
output = "scores"
column = 2
range = [-1.0, 1.0]
"""
    return [whole.encode(), *(part.encode() for part in whole.split("["))]


def jpeg(data: bytes) -> None:
    """A JPEG in a FRAME: it is decoded to the size in its header, or refused."""
    with suppress(WireError):
        width, height = header_size(data)
        check_size(width, height)
        if width * height <= 1_000_000:  # larger pictures within the limits would take too long here
            image = _READER.picture(Message(Kind.FRAME, data, width=width, height=height, encoding=Encoding.JPEG))
            assert image.shape == (height, width, 3)
    with suppress(WireError):  # the same for a JPEG that a capture passes on
        height, width, _ = (picture := Jpeg(data)).shape
        if picture.plain and width * height <= 1_000_000:
            assert picture.decode().shape == picture.shape


@cache
def _jpegs() -> list[bytes]:
    image = np.random.default_rng(0).integers(0, 255, (8, 16, 3), np.uint8)
    how = ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])
    return [cv2.imencode(".jpg", image, flags)[1].tobytes() for flags in how]


def stream(data: bytes) -> None:
    """A camera's stream, read by FFmpeg: it gives pictures, possibly damaged ones, or a `SourceError`."""
    with suppress(SourceError, WireError):
        source = open_source(str(_file("stream", data)), CameraSettings())
        try:
            for _ in range(4):
                if (picture := source.read()) is None:
                    break
                assert picture.image.ndim == 3
        finally:
            source.close()


def _streams() -> list[bytes]:
    found = []
    for suffix, codec in ((".avi", "MJPG"), (".ts", "mp2v"), (".avi", "mp4v")):
        path = _folder() / f"seed{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (32, 32))
        for n in range(3):
            writer.write(np.full((32, 32, 3), 40 * n, np.uint8))
        writer.release()
        found.append(path.read_bytes())
    return [*found, b"".join(_jpegs())]


TARGETS = {
    "message": Target(message, _messages),
    "hello": Target(hello, lambda: [json.dumps(HELLO).encode()]),
    "answer": Target(answer, _answers),
    "ready": Target(ready, lambda: [json.dumps(READY).encode(), json.dumps(READY | _OWN).encode()]),
    "cursor": Target(cursor, lambda: [b"0", b"17", b"00:17,01:0,02:9999999999999999999"]),
    "status": Target(status, _statuses),
    "hints": Target(hints, _hints),
    "faces": Target(faces, _faces),
    "measures": Target(measures, _measures),
    "descriptor": Target(descriptor, lambda: _ring()[1]),
    "aggregator": Target(aggregator, _conversations, 400),
    "event": Target(event, lambda: [cloudevents.encode(example).encode() for example in _event_list()]),
    "journal": Target(journal, _journals, 500),
    "settings": Target(settings, _settings, 800),
    "environment": Target(environment, _variables, 400),
    "key": Target(key, _keys, 2000),
    "cell": Target(cell, _cell, 4000),
    "metadata": Target(metadata, _metadata, 800),
    "sidecar": Target(sidecar, _sidecars, 800),
    "jpeg": Target(jpeg, _jpegs),
    "stream": Target(stream, _streams, 400),
}
