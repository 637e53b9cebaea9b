from __future__ import annotations

import pytest

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.sinks.file import open_sink
from fer_stream.types import CameraData, Event, EventType, Nanoseconds

EVENT = Event(EventType.CAMERA_ONLINE, "door", 1, 1, 0, Nanoseconds(0), CameraData("started", 640, 480))


def test_events_are_appended_line_by_line_and_at_once(tmp_path):
    path = tmp_path / "events.jsonl"
    sink = open_sink(str(path))
    sink.write(EVENT, '{"n":1,"label":"fröhlich"}')
    assert path.read_bytes() == '{"n":1,"label":"fröhlich"}\n'.encode()
    sink.close()
    sink.close()
    again = open_sink(str(path))
    again.write(EVENT, '{"n":2}')
    again.close()
    assert path.read_text(encoding="utf-8").splitlines() == ['{"n":1,"label":"fröhlich"}', '{"n":2}']


def test_no_name():
    with pytest.raises(ConfigError, match=r"needs the name of a file, as in file:events\.jsonl"):
        open_sink("")


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(FerStreamError, match=r"events cannot be written to '.*missing/events\.jsonl': No such file"):
        open_sink(str(tmp_path / "missing" / "events.jsonl"))
    with pytest.raises(FerStreamError, match="Is a directory"):
        open_sink(str(tmp_path))


def test_a_full_disk():
    sink = open_sink("/dev/full")
    with pytest.raises(FerStreamError, match="events cannot be written to '/dev/full': No space left on device"):
        sink.write(EVENT, "{}")
    with pytest.raises(FerStreamError, match="No space left"):
        sink.close()
