"""Every stored event from a NATS journal, and then those that come, without fer_stream.

    python docs/examples/nats_events.py nats://127.0.0.1:4222 [CAMERA]

It needs nats-py: pip install nats-py
"""

import asyncio
import json
import sys

import nats


async def main(address: str, camera: str = "*") -> None:
    """Print the events of a camera, or of all."""
    client = await nats.connect(address)
    # An ordered consumer keeps no state on the server. To resume later, save the sequence number of the last message,
    # and begin after it: deliver_policy="by_start_sequence", opt_start_seq=LAST + 1.
    events = await client.jetstream().subscribe(f"fer.local.ev.00.c.{camera}", ordered_consumer=True)
    async for message in events.messages:
        event = json.loads(message.data)
        label = event["data"].get("label", "")
        print(message.metadata.sequence.stream, event["time"], event["source"], event["type"], label, flush=True)


asyncio.run(main(*sys.argv[1:]))
