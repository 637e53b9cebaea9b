"""The file sink of `fer-stream deliver`: rotation, logrotate, and what a crash leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from journals import event

from fer_stream.errors import ConfigError, DeliveryError, RetryError
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.plugins import Delivery
from fer_stream.settings.tree import DeliverSettings
from fer_stream.sinks.file import EventFile, open_sink

if TYPE_CHECKING:
    from pathlib import Path


def deliveries(*frames: int) -> list[Delivery]:
    found = [event("camera.reset", frame=frame) for frame in frames]
    return [Delivery(event_id(one), one, encode(one)) for one in found]


def opened(path: Path, **options: Any) -> EventFile:
    return open_sink(str(path), DeliverSettings(sink="file:x", options=options))


def frames(path: Path) -> list[int]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line)["frame"] for line in text.splitlines()]


def rotated(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-*"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_batches_are_appended(path: Path) -> None:
    sink = opened(path)
    sink.write(deliveries(1, 2))
    sink.write(deliveries(3))
    assert path.read_text().splitlines() == [one.text for one in deliveries(1, 2, 3)]
    sink.close()
    sink.close()


def test_a_batch_that_comes_again_after_a_restart_is_not_repeated(path: Path) -> None:
    sink = opened(path)
    sink.write(deliveries(1, 2, 3))
    sink.close()
    again = opened(path)
    again.write(deliveries(2, 3, 4))
    again.write(deliveries(5))
    again.close()
    assert frames(path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut", [1, 10, 28, 40, 100])
def test_a_torn_last_line_is_removed(cut: int, path: Path) -> None:
    texts = [one.text for one in deliveries(1, 2)]
    path.write_text(f"{texts[0]}\n{texts[1][:cut]}")
    sink = opened(path)
    assert path.read_text() == f"{texts[0]}\n{texts[1][:cut]}"
    sink.write(deliveries(1))
    assert frames(path) == [1]
    sink.write(deliveries(2))
    sink.close()
    assert frames(path) == [1, 2]


@pytest.mark.parametrize("before", ["mine, without an end", "", "x" * 3_000_000, "a\nb\nc\n"], ids=len)
def test_what_is_not_ours_is_kept(before: str, path: Path) -> None:
    path.write_text(before)
    sink = opened(path)
    sink.write(deliveries(1))
    sink.close()
    end = "" if not before or before.endswith("\n") else "\n"
    assert path.read_text() == f"{before}{end}{deliveries(1)[0].text}\n"


def test_logrotate_moves_the_file_away(path: Path) -> None:
    sink = opened(path)
    sink.write(deliveries(1))
    path.rename(path.with_name("events.jsonl.1"))
    sink.write(deliveries(2))
    path.unlink()
    sink.write(deliveries(3))
    os.truncate(path, 0)  # copytruncate
    sink.write(deliveries(4))
    sink.close()
    assert frames(path.with_name("events.jsonl.1")) == [1]
    assert frames(path) == [4]


def test_a_moved_file_still_says_what_was_written_before_a_restart(path: Path) -> None:
    sink = opened(path)
    sink.write(deliveries(1, 2))
    sink.close()
    again = opened(path)
    path.rename(path.with_name("older"))
    again.write(deliveries(1, 2, 3))
    again.close()
    assert frames(path) == [3]


def test_rotation_by_size(path: Path) -> None:
    size = len(deliveries(1)[0].text) + 1
    sink = opened(path, max_mib=2 * size / 1_048_576, keep=2)
    for frame in range(1, 10):
        sink.write(deliveries(frame))
    sink.close()
    assert frames(path) == [9]
    assert [frames(older) for older in rotated(path)] == [[5, 6], [7, 8]]
    assert [older.name[-10:] for older in rotated(path)] == ["-003.jsonl", "-004.jsonl"]


def test_rotation_by_day_also_after_a_restart(path: Path) -> None:
    sink = opened(path, daily=True)
    sink.write(deliveries(1))
    sink.write(deliveries(2))
    assert rotated(path) == []
    yesterday = time.time() - 86_400
    os.utime(path, (yesterday, yesterday))
    sink.write(deliveries(3))
    sink.close()
    os.utime(path, (yesterday, yesterday))
    again = opened(path, daily=True)
    again.write(deliveries(3, 4))
    again.close()
    day = time.strftime("%Y-%m-%d", time.localtime(yesterday))
    assert [older.name for older in rotated(path)] == [f"events-{day}-001.jsonl", f"events-{day}-002.jsonl"]
    assert [frames(older) for older in rotated(path)] == [[1, 2], [3]]
    assert frames(path) == [4]


def test_a_full_disk_leaves_no_torn_batch(path: Path) -> None:
    sink = opened(path)
    sink.write(deliveries(1))
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, before[1]))
    try:
        with pytest.raises(RetryError, match=r"events cannot be written to '.*events\.jsonl': File too large"):
            sink.write(deliveries(*range(2, 50)))
        assert frames(path) == [1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    sink.write(deliveries(*range(2, 50)))
    sink.close()
    assert frames(path) == list(range(1, 50))


def test_a_device_that_is_full(path: Path) -> None:
    path.symlink_to("/dev/full")
    sink = opened(path)
    with pytest.raises(RetryError, match="No space left on device"):
        sink.write(deliveries(1))
    sink.close()


def test_a_pipe_gets_its_events_when_somebody_reads(path: Path) -> None:
    os.mkfifo(path)
    sink = opened(path)
    thread = threading.Thread(target=sink.write, args=(deliveries(1, 2),))
    thread.start()
    with path.open() as reader:
        thread.join()
        sink.close()
        assert [json.loads(line)["frame"] for line in reader] == [1, 2]


def test_two_sinks_do_not_share_a_file(path: Path) -> None:
    sink, other = opened(path), opened(path)
    sink.write(deliveries(1))
    with pytest.raises(RetryError, match="another process writes it"):
        other.write(deliveries(2))
    with pytest.raises(DeliveryError, match="another process writes it"):
        opened(path)
    sink.close()
    other.write(deliveries(2))
    other.close()
    assert path.read_text().splitlines() == [one.text for one in deliveries(1, 2)]


def test_a_check_makes_and_changes_nothing(path: Path) -> None:
    opened(path).check()
    assert not path.exists()
    path.write_text('{"specversion":"1.0","id":"torn')
    before = path.stat()
    opened(path).check()
    assert path.stat() == before
    path.chmod(0o400)
    path.parent.chmod(0o500)
    if os.geteuid():  # root may write everything
        with pytest.raises(RetryError, match="Permission denied"):
            opened(path).check()
    path.parent.chmod(0o700)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_mb": 3}, "max_mb"),
        ({"keep": 0}, "option keep = 0 is not allowed: it must be a whole number"),
        ({"daily": "often"}, 'option daily = "often" is not allowed'),
    ],
)
def test_invalid_options(options: dict[str, Any], said: str, path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(path, **options)
    assert said in str(caught.value)
    assert not path.exists()


def test_a_path_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs the name of a file, as in file:events\.jsonl"):
        open_sink("", DeliverSettings(sink="file:"))
    with pytest.raises(DeliveryError, match=r"cannot be written to '.*missing/e\.jsonl': No such file"):
        opened(tmp_path / "missing" / "e.jsonl")
    with pytest.raises(DeliveryError, match="Is a directory"):
        opened(tmp_path)
