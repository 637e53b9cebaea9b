"""The profiles of faults that the simulation runs."""

from __future__ import annotations

from fleet.world import Profile

ALL = {
    "crash": 3, "machine": 2, "pause": 3, "doze": 1, "isolate": 2, "stall": 1, "mute": 1, "outage": 2, "leave": 1,
    "join": 1, "jump": 1,
}  # fmt: skip

PROFILES = {
    "everything": Profile(ALL),
    "everything, often": Profile(ALL, gap=1.5),
    "leaders of the engine die": Profile({"outage": 1, "stall": 1, "jump": 1}),
    "aggregators die and leaders die": Profile({"crash": 1, "machine": 1, "outage": 1}),
    "paused beyond the lease": Profile({"pause": 2, "doze": 1}, gap=6.0),
    "cut off": Profile({"isolate": 1, "mute": 1, "stall": 1}),
    "come and go": Profile({"leave": 1, "join": 1}),
}
