"""Parsers of the values of options and arguments, for argparse."""

from __future__ import annotations

import argparse
import re

MOST_WORKERS = 256
"""Most processes that an option may ask for."""

LONGEST_AGE = 36_500 * 86_400
"""Most seconds of an age or a duration: a hundred years, so that every time has a date."""


def cursor(text: str) -> str:
    """Return a cursor of a journal."""
    from fer_stream.events.cursor import to_numbers  # noqa: PLC0415

    try:
        to_numbers(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def age(text: str) -> float:
    """Return the seconds of an age such as ``30d``; it may be 0."""
    unit = {"d": 86_400, "h": 3600, "m": 60, "s": 1}.get(text[-1:])
    if unit is None or not text[:-1].isascii() or not text[:-1].isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not an age: give days, hours, minutes or seconds, such as 30d")
    found = float(text[:-1]) * unit
    if found > LONGEST_AGE:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is too long: give at most {LONGEST_AGE // 86_400}d")
    return found


def duration(text: str) -> float:
    """Return the seconds of a duration such as ``5m``, above 0."""
    try:
        found = age(text)
    except argparse.ArgumentTypeError as error:
        if "too long" in str(error):
            raise
        found = 0.0
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: give days, hours, minutes or seconds, such as 5m")
    return found


def moment(text: str) -> int | float:
    """Return a point in time in nanoseconds, or an age in seconds as a float."""
    from fer_stream.events.cloudevents import from_rfc3339  # noqa: PLC0415

    if text[-1:] in ("d", "h", "m", "s"):
        return age(text)
    try:
        return from_rfc3339(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: give one with a time zone, such as 2026-01-31T08:00:00Z, or an age, such as 12h"
        ) from None


def count(text: str) -> int:
    """Return a whole number up to `MOST_WORKERS`."""
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_WORKERS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MOST_WORKERS}")
    return int(text)


def seconds(text: str) -> float:
    """Return a number of seconds above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: give seconds above 0, such as 5 or 0.5")
    return found


def mapping(text: str) -> tuple[str, str]:
    """Return the two sides of ``THEIRS=OURS``; the second may be empty."""
    theirs, sign, ours = text.partition("=")
    if not sign or not theirs.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no mapping: give THEIRS=OURS, such as joy=happy")
    return theirs.strip(), ours.strip()


def track(text: str) -> tuple[str, str]:
    """Return the film and the track of ``FILM=TRACK``, or of ``TRACK`` with an empty film."""
    film, sign, which = text.rpartition("=")
    if not which or (sign and not film):
        raise argparse.ArgumentTypeError(f"{text!r} is no track: give a number, FILM=NUMBER, or longest")
    return film, which


def share(text: str) -> float:
    """Return a number above 0 and up to 1."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 1")
    return found


def camera(text: str) -> str:
    """Return the name of a camera, or ``*``."""
    from fer_stream.settings.kinds import CAMERA_NAME  # noqa: PLC0415  (pydantic is slow to import)

    if text != "*" and not re.match(CAMERA_NAME, text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the name of a camera: give its name, or * for any")
    return text
