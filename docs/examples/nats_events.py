"""Every stored event of a cell, and then those that come, in Python with nats-py alone. It can be resumed.

    pip install nats-py nkeys
    python nats_events.py tls://n1.example.org,n2.example.org --cell site --partitions 16 --seed wall.nk --ca ca.pem
    python nats_events.py nats://127.0.0.1:4222 --after 17

An aggregator alone is the cell `local` with one partition. Each line has the cursor to resume after: the last number of
each partition that was read. A reader's nkey suffices: it makes no consumer, and writes nothing.
"""

import argparse
import asyncio
import json
import ssl

import nats
import nats.errors

BATCH = 500
IDLE = 5.0  # seconds without an event after which it looks whether one was missed


class Partition:
    """Reads one partition of the cell. Its events, and its fences, have the numbers 1, 2, 3, ... without a gap."""

    def __init__(self, client, prefix, number, after):
        self.token, self.after = f"{number:02x}", after
        self._client, self._all = client, f"{prefix}.ev.{self.token}.>"

    async def stored(self):
        """Yield the stored events after the last one: a "direct get" of batches, see NATS ADR-31."""
        more = True
        while more:
            inbox = self._client.new_inbox()
            answers = await self._client.subscribe(inbox)
            what = {"seq": self.after + 1, "batch": BATCH, "next_by_subj": self._all}
            subject = f"$JS.API.DIRECT.GET.FER_EV_{self.token}"
            await self._client.publish(subject, json.dumps(what).encode(), reply=inbox)
            try:
                while "Nats-Sequence" in (headers := (message := await answers.next_msg(timeout=5)).headers or {}):
                    for event in self.take(int(headers["Nats-Sequence"]), headers["Nats-Subject"], message.data):
                        yield event
            finally:
                await answers.unsubscribe()
            more = int(headers.get("Nats-Num-Pending", 0)) > 0  # status 204; 404: no more; 503: nothing stored yet

    def take(self, sequence, subject, data):
        """Return the event of a message, unless it is known already or a fence."""
        if sequence <= self.after:
            return []
        self.after = sequence
        return [] if subject.endswith(".fence") else [json.loads(data)]


async def follow(client, cell, partitions, after):
    """Yield ``(cursor, event)`` for every event after a cursor, for ever."""
    prefix = f"fer.{cell}"
    numbers = dict(part.split(":") for part in after.split(",")) if ":" in after else {}
    parts = [Partition(client, prefix, n, int(numbers.get(f"{n:02x}", after))) for n in range(partitions)]
    by_token = {part.token: part for part in parts}

    def cursor():
        return ",".join(f"{part.token}:{part.after}" for part in parts) if partitions > 1 else str(parts[0].after)

    live = await client.subscribe(f"{prefix}.live.>")  # what the servers have stored; begin to listen first
    missed = parts
    while True:
        for part in missed:
            try:
                async for event in part.stored():
                    yield cursor(), event
            except nats.errors.Error:  # no connection, or a cluster that elects its leader: it is missed once more
                await asyncio.sleep(1)
        try:
            message = await live.next_msg(timeout=IDLE)
        except nats.errors.TimeoutError:
            missed = parts
            continue
        part = by_token[message.subject.split(".")[3]]
        sequence = int(message.headers["Nats-Sequence"])
        missed = [part] if sequence > part.after + 1 else []
        if not missed:
            for event in part.take(sequence, message.headers["Nats-Subject"], message.data):
                yield cursor(), event


async def main():
    """Print the events as lines: cursor, time, source, type, label."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address", help="nats://HOST:PORT or tls://HOST, several with commas")
    parser.add_argument("--cell", default="local")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--after", default="0", help="the cursor to resume after")
    parser.add_argument("--seed", help="file with the nkey's seed")
    parser.add_argument("--ca", help="file with the certificate authority of the servers")
    given = parser.parse_args()
    scheme, _, hosts = given.address.partition("://")
    options = {"servers": [f"{scheme}://{host}" for host in hosts.split(",")], "nkeys_seed": given.seed}
    if scheme == "tls":
        options["tls"] = ssl.create_default_context(cafile=given.ca)
    client = await nats.connect(**options, max_reconnect_attempts=-1)
    async for cursor, event in follow(client, given.cell, given.partitions, given.after):
        label = event["data"].get("label", "")
        print(cursor, event["time"], event["source"], event["type"], label, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
