"""How a capture or a worker finds its aggregator, and follows it. A state machine without sockets or clocks.

It knows some addresses, the *list*: those of its settings, and those that the last answer named. It goes through them
in an order of its own until one answers. Then it does as it is told::

    WELCOME         stay; after `SILENCE` seconds without a word, or a broken connection, go on with the list
    MOVED, place    connect there at once
    MOVED, nobody   ask again here after the given time; each `PATIENCE`-th time ask the next of the list instead
    no answer       go on with the list

It never runs in a circle: a place that it was sent to before, or the `HOPS`-th place, since it last rested is tried
only after a rest. Rests double from `REST` to `LONGEST` seconds, times a random factor. They are short again once it
was welcome for `STAY` seconds. If it is sent to a place that failed less than `DEAD` seconds ago, it asks here again:
the owner is dead, and nobody has taken over yet. The aggregator sends something at least once a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fer_stream.fleet.records import Place

ANSWER, LONGEST_ANSWER = 1.0, 2.0
"""Seconds to wait for an answer: first, and at most. They double each time the whole list was of no use."""

SILENCE = 2.0
"""Seconds without any message after which a welcome ends."""

HOPS = 4
"""Most places that are followed without a rest."""

PATIENCE = 4
"""How many times in a row it asks at one place that says that nobody owns its partition."""

AVOID = 3.0
"""Seconds for which a place that failed is not chosen from the list."""

DEAD = 1.0
"""Seconds for which a place that failed is not followed. It may be restarted, and own its partitions again, sooner than
a place that nobody names."""

AGAIN = 0.5
"""Seconds until it asks again instead."""

REST, LONGEST = 0.2, 2.0
"""First and longest rest in seconds, before the random factor of 0.5 to 1.5."""

STAY = 5.0
"""Seconds of welcome after which earlier trouble is forgotten."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Close the present link, connect to this place, and say HELLO or READY."""

    place: Place


@dataclass(frozen=True, slots=True)
class Hello:
    """Say HELLO or READY again on the present link."""


class Seeker:
    """See the module docstring. Its methods return the command that follows from their input, or ``None``."""

    def __init__(self, places: Sequence[Place], numbers: Random) -> None:
        """Know these places; ``numbers`` decides their order and the lengths of rests.

        Raises:
            ValueError: there are no places.
        """
        if not places:
            raise ValueError("at least one address is needed")
        self.place: Place | None = None
        """Where it is connected, or was last."""
        self.state: Literal["resting", "asking", "welcome"] = "resting"
        self._first = numbers.sample(list(places), len(places))
        self._list = self._first
        self._numbers = numbers
        self._linked = False  # whether the link to `place` is not known to be broken
        self._turn = 0  # how many places of the list were tried
        self._goal: Place | None = None  # where to go after the rest; None: the next of the list
        self._due = float("-inf")
        self._chase: list[Place] = []  # places tried since the last rest
        self._rests = self._asked = 0
        self._failed: dict[Place, float] = {}
        self._unanswered = 0
        self._welcomed = 0.0

    @property
    def places(self) -> tuple[Place, ...]:
        """The list."""
        return tuple(self._list)

    # Input

    def welcome(self, others: Sequence[Place], now: float) -> None:
        """Take WELCOME, and the other places that it names."""
        self._learn(others)
        if self.state != "welcome":
            self.state, self._welcomed = "welcome", now
        self._asked = self._unanswered = 0
        self.heard(now)

    def heard(self, now: float) -> None:
        """Take the time at which any message arrived while it was welcome."""
        if self.state == "welcome":
            self._due = now + SILENCE

    def moved(self, place: Place | None, wait: float, others: Sequence[Place], now: float) -> Connect | None:
        """Take MOVED: a place, or ``None`` and the seconds after which to come again; and the other places it names."""
        self._learn(others)
        if self.state == "resting":
            return None  # it was told already
        self._unanswered = 0
        if place is None or place == self.place or now - self._failed.get(place, float("-inf")) < DEAD:
            self._asked += 1
            elsewhere = self._asked % PATIENCE == 0
            self._rest((wait if place is None else AGAIN) * self._factor(), None if elsewhere else self.place, now)
            return None
        if place in self._chase or len(self._chase) >= HOPS:
            self._rest(self._backoff(), place, now)
            return None
        return self._connect(place, now)

    def broken(self, now: float) -> Connect | None:
        """Take that the connection broke or cannot be made."""
        if self.state == "resting" or self.place is None:
            return None
        self._failed[self.place], self._linked = now, False
        self._unanswered += 1
        if self._unanswered < len(self._list):
            self._rest(REST * self._factor() * bool(self._unanswered > 1), None, now)
        else:
            self._rest(self._backoff(), None, now)
        return None

    def tick(self, now: float) -> Connect | Hello | None:
        """Do what is due. Call it at least every 0.1 s; first to begin."""
        if self.state == "welcome" and now - self._welcomed >= STAY:
            self._rests, self._chase = 0, [self.place] if self.place else []
        if now < self._due:
            return None
        if self.state != "resting":
            return self.broken(now)
        goal, self._goal = self._goal or self._next(now), None
        if goal == self.place and self._linked:
            self._ask(now)
            return Hello()
        return self._connect(goal, now)

    # Steps

    def _learn(self, others: Sequence[Place]) -> None:
        # An answer names others. The place that gave it is known, too, and may be the only one that lives.
        answered = [self.place] if self.place is not None else []
        self._list = list(dict.fromkeys([*self._first, *answered, *others]))

    def _connect(self, place: Place, now: float) -> Connect:
        self.place, self._linked = place, True
        self._chase.append(place)
        self._ask(now)
        return Connect(place)

    def _ask(self, now: float) -> None:
        rounds = self._unanswered // len(self._list)
        self.state, self._due = "asking", now + min(ANSWER * (1 << rounds), LONGEST_ANSWER)

    def _rest(self, seconds: float, goal: Place | None, now: float) -> None:
        self.state, self._due, self._goal = "resting", now + seconds, goal
        self._chase = [self.place] if goal is not None and goal == self.place else []

    def _backoff(self) -> float:
        self._rests += 1
        return min(REST * (1 << self._rests - 1), LONGEST) * self._factor()

    def _factor(self) -> float:
        return self._numbers.uniform(0.5, 1.5)

    def _next(self, now: float) -> Place:
        """Return the next place of the list, if possible one that is not the present one and has not just failed.

        If all others have just failed, and the present one answers, it is that one.
        """
        count = len(self._list)
        turns = range(self._turn, self._turn + count)
        known = [self._list[turn % count] for turn in turns]
        fresh = [one for one in known if one != self.place and now - self._failed.get(one, -AVOID) >= AVOID]
        if not fresh and self.place and self._linked:
            return self.place
        other = [one for one in known if one != self.place]
        chosen = (fresh or other or known)[0]
        self._turn += known.index(chosen) + 1
        return chosen
