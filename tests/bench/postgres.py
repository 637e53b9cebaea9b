"""How many events the sink postgres stores in a second, in batches of several sizes. It starts a server of its own."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from journals import event
from postgres_servers import PostgresServer

from fer_stream.events.cloudevents import encode, event_id
from fer_stream.plugins import Delivery
from fer_stream.settings.tree import DeliverSettings
from fer_stream.sinks.postgres import open_sink
from fer_stream.types import ExpressionData

EVENTS = 20_000
LABELS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
KINDS = ("emotion.started", "emotion.updated", "emotion.ended")


def deliveries() -> list[Delivery]:
    found = []
    for number in range(1, EVENTS + 1):
        one = event(KINDS[number % 3], frame=number, track=number % 50 + 1)
        assert isinstance(one.data, ExpressionData)
        data = replace(one.data, probabilities=dict.fromkeys(LABELS, 0.125))
        one = replace(one, data=data, sequence=number)
        found.append(Delivery(event_id(one), one, encode(one)))
    return found


def main() -> None:
    server, batch = PostgresServer(), deliveries()
    server.configure(fsync="on")
    server.start()
    try:
        sink = open_sink(server.address().removeprefix("postgres:"), DeliverSettings(sink="postgres:x"))
        for size in (1, 10, 100, 1000):
            count = min(EVENTS, 2000 * size)
            sink.write([])
            server.psql("TRUNCATE fer_stream.events")
            began = time.perf_counter()
            for begin in range(0, count, size):
                sink.write(batch[begin : begin + size])
            seconds = time.perf_counter() - began
            assert server.psql("SELECT count(*) FROM fer_stream.events") == [[str(count)]]
            print(f"{count:6} events in batches of {size:4}: {count / seconds:7.0f} events/s")
        sink.close()
    finally:
        server.close()


if __name__ == "__main__":
    main()
