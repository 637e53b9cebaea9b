"""Captures and workers find their aggregator, follow it, and never run in circles."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from fer_stream.fleet import seeker
from fer_stream.fleet.records import Place
from fer_stream.fleet.seeker import ANSWER, DEAD, PATIENCE, SILENCE, STAY, Connect, Hello, Seeker

if TYPE_CHECKING:
    from collections.abc import Callable

A, B, C, D = (Place(f"tcp://{name}", f"key of {name}") for name in "abcd")


class Trip:
    """A seeker, its clock, and where it went."""

    def __init__(self, *places: Place, seed: int = 1) -> None:
        self.seeker = Seeker(places, Random(seed))
        self.now = 0.0
        self.went: list[tuple[float, Connect | Hello]] = []
        self.go(0.05)

    def take(self, command: Connect | Hello | None) -> None:
        if command is not None:
            self.went.append((self.now, command))

    def go(self, seconds: float, at: Callable[[Trip], None] = lambda trip: None) -> None:
        """Let time pass; ``at`` acts after each command."""
        end = self.now + seconds
        while self.now < end:
            before = len(self.went)
            self.take(self.seeker.tick(self.now))
            if len(self.went) > before:
                at(self)
            self.now += 0.05

    def told(self, place: Place | None, wait: float = 0.0) -> None:
        self.take(self.seeker.moved(place, wait, (), self.now))

    @property
    def places(self) -> list[Place]:
        return [command.place for _, command in self.went if isinstance(command, Connect)]


def test_it_needs_an_address() -> None:
    with pytest.raises(ValueError, match="at least one address"):
        Seeker([], Random(1))


def test_it_goes_through_its_list_until_one_answers() -> None:
    trip = Trip(A, B, C)
    trip.go(2.9 * ANSWER)
    assert set(trip.places) == {A, B, C}
    assert len(trip.places) == 3


def test_the_order_differs_from_process_to_process() -> None:
    assert len({Trip(A, B, C, seed=seed).places[0] for seed in range(20)}) == 3


def test_a_refused_connection_is_noticed_at_once() -> None:
    trip = Trip(A, B)
    trip.take(trip.seeker.broken(trip.now))
    trip.go(0.1)
    assert len(trip.places) == 2


def test_it_stays_while_it_hears_something_and_leaves_after_silence() -> None:
    trip = Trip(A, B)
    trip.seeker.welcome([], trip.now)
    for _ in range(20):
        trip.go(SILENCE / 2)
        trip.seeker.heard(trip.now)
    assert len(trip.places) == 1
    trip.go(SILENCE + 0.2)
    assert len(trip.places) == 2
    assert trip.places[1] != trip.places[0]


def test_it_learns_places_from_answers() -> None:
    trip = Trip(A)
    trip.seeker.welcome([B, A], trip.now)
    assert trip.seeker.places == (A, B)
    trip.go(SILENCE + 0.2)
    assert trip.places == [A, B]
    trip.seeker.moved(None, 0.1, [C], trip.now)
    assert trip.seeker.places == (A, B, C)


def test_moved_is_followed_at_once() -> None:
    trip = Trip(A)
    trip.told(B)
    trip.told(C)
    assert trip.places == [A, B, C]


def test_it_asks_again_where_nobody_owns_its_partition_and_then_elsewhere() -> None:
    trip = Trip(A, B)
    first, second = trip.places[0], A if trip.places[0] == B else B
    trip.told(None, 0.2)
    trip.go(5, lambda trip: trip.told(None, 0.2))
    asked = [Connect(first), *[Hello()] * (PATIENCE - 1), Connect(second), *[Hello()] * (PATIENCE - 1), Connect(first)]
    assert [command for _, command in trip.went[: len(asked)]] == asked


def test_it_comes_back_to_the_only_place_that_lives() -> None:
    """It was given one address, and that one is dead; the other names only the dead one, until it takes over itself."""
    trip = Trip(A)
    trip.seeker.welcome([B], trip.now)
    trip.take(trip.seeker.broken(trip.now))

    def ask(trip: Trip) -> None:
        if trip.seeker.place == B:
            trip.take(trip.seeker.moved(A, 0.0, (A,), trip.now))

    trip.go(20, ask)
    here = [command.place for _, command in trip.went[-20:] if isinstance(command, Connect)]
    assert A in here, "it looks there, too"
    assert B in here, "and comes back"
    assert B in trip.seeker.places


def test_it_does_not_follow_to_a_place_that_has_just_failed() -> None:
    trip = Trip(A)
    trip.seeker.welcome([], trip.now)
    trip.told(B)
    trip.take(trip.seeker.broken(trip.now))
    failed = trip.now
    trip.go(DEAD - 0.2, lambda trip: trip.told(B))
    assert trip.places == [A, B, A]
    trip.go(1.5, lambda trip: trip.told(B))
    assert trip.places[:4] == [A, B, A, B]
    assert trip.went[-1][0] - failed >= DEAD - 0.05


def circle(*places: Place) -> int:
    """Each place sends it on to the next; return how many connections it makes in a minute, or more than 1,000."""
    trip = Trip(places[0])
    following = dict(zip(places, [*places[1:], places[0]], strict=True))

    def sent_on(trip: Trip) -> None:
        before = -1
        while before < len(trip.went) < 1000:
            before = len(trip.went)
            assert trip.seeker.place is not None
            trip.told(following[trip.seeker.place])

    sent_on(trip)
    trip.go(60, sent_on)
    return len(trip.places)


@pytest.mark.parametrize("places", [(A, B), (A, B, C, D), (*(Place(f"tcp://{n}") for n in range(40)),)])
def test_it_never_runs_in_circles(places: tuple[Place, ...]) -> None:
    assert circle(*places) < 240, "four connections for each rest of some seconds, at most"


def test_a_seeker_that_follows_always_runs_in_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    monkeypatch.setattr(Seeker, "moved", lambda self, place, wait, others, now: self._connect(place, now))
    assert circle(A, B) >= 1000


def test_rests_grow_and_are_short_again_after_a_welcome() -> None:
    trip = Trip(A)
    trip.go(60)
    gaps = [late - early for (early, _), (late, _) in zip(trip.went, trip.went[1:], strict=False)]
    assert gaps[-1] > 2 * gaps[0]
    assert max(gaps) <= seeker.LONGEST_ANSWER + 1.5 * seeker.LONGEST + 0.2
    trip.go(10, lambda trip: trip.seeker.welcome([], trip.now))
    for _ in range(round(STAY) + 1):
        trip.seeker.heard(trip.now)
        trip.go(1.0)
    trip.seeker.heard(trip.now)
    heard, before = trip.now, len(trip.went)
    trip.go(10)
    assert trip.went[before][0] - heard <= SILENCE + 1.5 * seeker.REST + 0.1
