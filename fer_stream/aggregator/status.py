"""The aggregator's answer to STATUS, as JSON."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from fer_stream.aggregator.publisher import describe
from fer_stream.operations.process import DELIVERIES, read_note
from fer_stream.protocol import shared

if TYPE_CHECKING:
    from fer_stream.aggregator.captures import Captures
    from fer_stream.aggregator.membership import Membership
    from fer_stream.aggregator.publisher import Publisher
    from fer_stream.aggregator.roster import Camera
    from fer_stream.aggregator.workers import Workers


def status(
    captures: Captures, workers: Workers, publisher: Publisher, membership: Membership, started: float, now: float
) -> dict[str, Any]:
    """Return the cameras with their ledgers and tracks, the workers, the sinks, the counts of events, and the cell.

    Args:
        captures: the cameras.
        workers: the workers.
        publisher: the events, and the journal's cursor.
        membership: the cell.
        started: when the aggregator began, in monotonic seconds.
        now: monotonic seconds.
    """
    return {
        "pid": os.getpid(),
        "uptime_s": round(now - started, 1),
        "cursor": publisher.cursor,
        "events_held": publisher.held,
        "labels": list(workers.labels.labels) if workers.labels else [],
        "memory": shared.identity(),
        "cameras": {name: _camera(camera, now) for name, camera in captures.cameras.items()},
        "workers": _workers(workers),
        "sinks": read_note(DELIVERIES),
        "events": dict(sorted(publisher.counted.items())),
        "fleet": membership.status(),
    }


def _workers(workers: Workers) -> dict[str, Any]:
    names = Counter(known.name for known in workers.known.values())
    return {
        known.name if names[known.name] == 1 else f"{known.name} at {known.host}": {
            "state": known.credit.state,
            "frames": known.credit.done,
            "pid": known.pid,
            "model": known.model,
            "detector": known.detector,
        }
        for known in workers.known.values()
    }


def _camera(camera: Camera, now: float) -> dict[str, Any]:
    timeline = camera.timeline
    return {
        "state": "ended" if camera.ended else "online" if timeline and timeline.online else "offline",
        "epoch": camera.epoch,
        "pid": camera.pid,
        "policy": camera.policy,
        "live": camera.live,
        "frames": camera.length,
        "rate": 0.0 if camera.ended else camera.rate.now(),
        "frame_age_s": round(camera.age, 4),
        "heard_s": round(now - camera.heard, 2),
        "ledger": camera.frames.ledger().as_dict(),
        "tracks": describe(timeline) if timeline else [],
    }
