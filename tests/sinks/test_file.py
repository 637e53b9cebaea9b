from __future__ import annotations

import os
import resource
import signal
import threading

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
    for _ in range(2):
        with pytest.raises(FerStreamError, match="events cannot be written to '/dev/full': No space left on device"):
            sink.write(EVENT, "{}")
    sink.close()


def test_a_line_that_was_cut_off_is_completed(tmp_path):
    path, before = tmp_path / "events.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sink = open_sink(str(path))
    sink.write(EVENT, '{"n":1}')
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12, before[1]))
        for n in (2, 3):
            with pytest.raises(FerStreamError, match="File too large"):
                sink.write(EVENT, f'{{"n":{n}}}')
        assert path.read_text() == '{"n":1}\n{"n"'
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    sink.write(EVENT, '{"n":4}')
    sink.close()
    assert path.read_text() == '{"n":1}\n{"n":2}\n{"n":4}\n', "each line is JSON"


@pytest.mark.parametrize("how", ["moved", "deleted", "moved, and another one there", "copied and truncated"])
def test_logs_can_be_rotated_without_a_signal(how, tmp_path):
    path = tmp_path / "events.jsonl"
    sink = open_sink(str(path))
    sink.write(EVENT, "1")
    if how == "copied and truncated":
        path.write_text("")
    elif how == "deleted":
        path.unlink()
    else:
        path.rename(tmp_path / "events.jsonl.1")
        if how != "moved":
            path.touch()
    sink.write(EVENT, "2")
    sink.close()
    assert path.read_text() == "2\n"
    if how.startswith("moved"):
        assert (tmp_path / "events.jsonl.1").read_text() == "1\n"


def test_a_pipe_is_opened_without_a_reader_and_waits_for_one_to_write(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = open_sink(str(path))
    writer = threading.Thread(target=sink.write, args=(EVENT, "1"))
    writer.start()
    with path.open() as reader:
        assert reader.readline() == "1\n"
    writer.join()
    with pytest.raises(FerStreamError, match="Broken pipe"):
        sink.write(EVENT, "2")
    sink.close()
    open_sink(str(path)).close()


def test_a_user_s_home_folder_may_be_missing(monkeypatch, tmp_path):
    """A path is expanded as in a shell, which keeps the name of a user that does not exist."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FerStreamError, match="~nobody-has-this-name/events"):
        open_sink("~nobody-has-this-name/events.jsonl")
