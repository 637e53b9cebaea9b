"""Tells which aggregators are silent, by this process's monotonic clock alone.

Every aggregator writes its own key every `BEAT` seconds and watches all keys. The engine delivers the writes of one
bucket in order. So when my own write comes back through my watch (its *echo*), I have received everything that
others wrote before it. Their silence is therefore known up to the time at which I sent that write, and no further:

    silence of B = (sending of my latest echoed write) - (the later of: last word from B, start of my series)

My series of echoed writes starts anew after a gap of more than `GAP`: the engine was away, or I was. Others were
then perhaps unable to write, or I to read. So when the engine's leader dies, nobody is silent until T seconds after
its return. A watch that lags delays my echo, too. Jumps of the wall clock have no effect.
"""

from __future__ import annotations

BEAT = 0.5
"""Seconds between two writes of an aggregator's key."""

T = 3.0
"""Seconds of silence after which an aggregator's partitions are taken over."""

GAP = T / 2
"""Seconds between two echoed writes beyond which a new series starts."""

REMEMBERED = 64
"""Own writes whose echoes are recognized; a later echo proves too little."""


class Liveness:
    """See the module docstring. Times are seconds of one monotonic clock."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._sent: dict[int, float] = {}  # when the latest beats were sent
        self._number = 0
        self._due = float("-inf")
        self._heard: dict[str, float] = {}  # when each other aggregator was heard last
        self._since: float | None = None  # when the first echoed write of my series was sent
        self._proven = float("-inf")  # when the latest one was

    def beat(self, now: float) -> int | None:
        """Return the number of the beat that is due, or ``None``."""
        if now < self._due:
            return None
        self._due = now + BEAT
        self._number += 1
        self._sent[self._number] = now
        self._sent.pop(self._number - REMEMBERED, None)
        if self._number == 1:
            self._proven = now  # so that doubt begins T seconds after the start
        return self._number

    def hear(self, member: str, number: int, now: float) -> bool:
        """Take a delivery of the watch; return whether it is an echo of this process's own beat."""
        if member != self._me:
            self._heard[member] = now
            return False
        sent = self._sent.get(number)
        if sent is None:
            return False
        if self._since is None or sent - self._proven > GAP:
            self._since = sent
        self._proven = max(self._proven, sent)
        return True

    def mention(self, member: str, now: float) -> None:
        """Learn of an aggregator from others. It counts as heard if it was not known: its silence begins now."""
        self._heard.setdefault(member, now)

    def silence(self, member: str) -> float:
        """Return for how many seconds another aggregator has certainly not written; 0 if nothing is certain."""
        if self._since is None:
            return 0.0
        return max(0.0, self._proven - max(self._heard.get(member, self._since), self._since))

    def silent(self, member: str) -> bool:
        """Return whether an aggregator counts as dead."""
        return self.silence(member) >= T

    def living(self) -> set[str]:
        """Return the known aggregators that are not silent."""
        return {member for member in self._heard if not self.silent(member)}

    def settled(self, now: float) -> bool:
        """Return whether this process may judge others: its series goes on, and is long enough to have heard all."""
        return self._since is not None and self._proven - self._since >= T and now - self._proven <= GAP

    def doubtful(self, now: float) -> bool:
        """Return whether others may have found this process silent: none of its writes of the last T seconds is proven.

        It may have been taken over, or the engine is away from everybody; which of the two it cannot know.
        """
        return now - self._proven > T

    def forget(self, member: str) -> None:
        """Forget an aggregator that has gone."""
        self._heard.pop(member, None)
