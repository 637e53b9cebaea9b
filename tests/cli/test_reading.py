"""The commands recognize, status and purge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli.command import Environment, fer_stream

from fer_stream.cli.reading import status_lines
from fer_stream.inference import models

if TYPE_CHECKING:
    from processes import Cli

PORTRAIT = Path(models.__file__).parents[1] / "assets" / "grace_hopper.jpg"


def test_recognize_continues_after_a_file_that_is_no_image(environment: Environment) -> None:
    code, out, err = fer_stream("recognize", "missing.jpg", "x" * 300, __file__, str(PORTRAIT), environment=environment)
    assert code == 1
    assert len([line for line in err.splitlines() if line.startswith("fer-stream: error: ")]) == 3
    (line,) = [json.loads(line) for line in out.splitlines()]
    assert line["image"] == str(PORTRAIT)
    (face,) = line["faces"]
    x1, y1, x2, y2 = face["box"]
    assert x1 < x2
    assert y1 < y2
    assert face["confidence"] > 0.9
    assert set(face["probabilities"]) == {"dark", "bright"}
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_status_lines() -> None:
    ledger = {"captured": 100, "done": 97, "superseded": 2, "rejected": 0, "lost_link": 0, "in_flight": 1}
    tracks = [
        {"track": 4, "label": "happy", "probabilities": {"happy": 0.81}},
        {"track": 5, "label": None, "probabilities": {}},
    ]
    camera = {
        "state": "online",
        "policy": "wait",
        "rate": 24.5,
        "frame_age_s": 0.012,
        "ledger": ledger,
        "tracks": tracks,
    }
    worker = {"state": "busy", "frames": 97, "pid": 12, "model": "emotion 1.0", "detector": "mtcnn"}
    state = {"uptime_s": 61.4, "cursor": "9", "labels": ["happy"], "events": {"face.entered": 2}}
    text = "\n".join(status_lines(state | {"cameras": {"door": camera}, "workers": {"1": worker}}))
    assert "up 61 s, 2 events, cursor 9, labels: happy" in text
    assert "door    online  wait    24.5      12       100    97           2          1      2" in text
    assert "superseded" in text
    assert "lost link" not in text
    assert "1       busy       97   12  emotion 1.0  mtcnn" in text
    assert "door    #4    happy 81%" in text
    assert "door    #5    uncertain" in text
    empty = "\n".join(status_lines(state | {"labels": [], "cameras": {}, "workers": {}}))
    assert "no cameras" in empty
    assert "no workers" in empty


def test_status_lines_of_a_cell() -> None:
    ledger = {"captured": 3, "done": 3, "in_flight": 0}
    about = {"policy": "wait", "rate": 1.0, "frame_age_s": 0.0, "ledger": ledger, "tracks": []}
    camera = {**about, "state": "online", "aggregator": "north", "partition": 5}
    worker = {"state": "idle", "frames": 3, "pid": 1, "model": "m", "detector": "d", "aggregator": "north"}
    place = {
        "address": "tcp://n:1",
        "load": 1.25,
        "cameras": 1,
        "workers": 1,
        "idle": 1,
        "leaving": False,
        "owns": [0, 5],
    }
    aggregators = {
        "north": {**place, "error": "", "uptime_s": 7.0},
        "south": {**place, "address": "tcp://s:1", "error": "no answer within 3 s", "uptime_s": None},
    }
    fleet = {"cell": "site", "partitions": 8, "aggregators": aggregators, "unowned": [3, 7]}
    state = {"uptime_s": 7.0, "cursor": "00:1,01:0", "labels": [], "events": {}, "fleet": fleet}
    text = "\n".join(status_lines(state | {"cameras": {"door": camera}, "workers": {"1": worker}}))
    assert "cell site, partitions: 8" in text
    assert "north       tcp://n:1  7      1.2        1     1           2  ok" in text
    assert "south       tcp://s:1         1.2        1     1           2  no answer within 3 s" in text
    assert "partitions without an aggregator: 3, 7" in text
    assert "door    north               5  online" in text
    assert "1       north       idle" in text


def test_old_events_are_purged(cli: Cli) -> None:
    run = cli.start("run", "--journal", "events.db", "--bind", f"ipc://{cli.temporary}/p")
    run.until(lambda: run.out, "an event")
    assert run.stop() == 0
    kept = cli.run("purge", "--older-than", "1d", "--journal", "events.db")
    assert kept.out == "0 events deleted from events.db\n"
    gone = cli.run("purge", "--older-than", "0s", "--journal", "events.db")
    assert int(gone.out.split()[0]) > 0
    (gap,) = cli.run("subscribe", "--journal", "events.db", "--format", "jsonl").out.splitlines()
    assert json.loads(gap)["type"] == "stream.gap"
    wrong = cli.run("purge", "--older-than", "yesterday")
    assert wrong.popen.returncode == 2
    assert "'yesterday' is not an age" in wrong.err
