"""Reads the annotations of several raters, and matches their films."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fer_stream.analysis.agreement.faces import are_of_faces, by_face
from fer_stream.analysis.agreement.lines import Line, line, relabelling, same
from fer_stream.errors import AnnotationError
from fer_stream.events.annotations import WRONG
from fer_stream.interchange import own
from fer_stream.interchange.annotations import film_name
from fer_stream.interchange.formats import read_annotations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from fer_stream.interchange.annotations import Coding

OUTSIDE = 0.1
"""If a larger share of a coder's labelled time than this is outside of ours, a remark says so."""

MOST_LABELS = 200
"""Most different labels: every pair of them has a row in the tables, and a transcript has a label for each word."""

SHOWN = 6
"""Names that a message lists at most."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The options of a comparison.

    ``mapping`` maps coders' labels to ours (an empty text: to no label). ``groups`` has the group of each label, if
    groups are compared. ``tracks`` has our track for each film (``""``: for any other film), ``tier`` the coders' tier.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] | None = None
    tracks: Mapping[str, str] = field(default_factory=dict)
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class Film:
    """One film, with each rater's line by the rater's name; the first rater is ours.

    ``folder`` is its analysis, and ``tracks`` are those of our line.
    """

    name: str
    lines: dict[str, Line]
    folder: Path | None = None
    tracks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Material:
    """Films with at least two raters, the raters in order, the labels, and remarks on what was left out."""

    films: tuple[Film, ...]
    raters: tuple[str, ...]
    labels: tuple[str, ...]
    remarks: tuple[str, ...]


def gather(ours: Path, coders: Sequence[Path], choices: Choices) -> Material:
    """Read all files, and put the films of the same name together.

    Raises:
        AnnotationError: a file cannot be read; no film of a coder is one of ours; no label is; a film is coded twice by
            a coder; a film has several tracks of which none was chosen; or raters have no time in common.
    """
    mine = _mine(ours, read_annotations(ours))
    theirs: Mapping[Path, Sequence[Coding]] = {path: read_annotations(path) for path in coders}
    known = _labels(mine.values(), choices)
    if not choices.tracks and choices.tier is None and are_of_faces(each for one in theirs.values() for each in one):
        mine, theirs = by_face(mine, theirs)
    unknown = sorted(set(choices.tracks) - set(mine) - {""})
    if unknown:
        raise AnnotationError(f"--track: there is no film {unknown[0]!r}; ours are {_some(mine)}")
    ours_name = "fer-stream" if all(each.kind == own.KIND for each in mine.values()) else _rater(ours, None, "")
    relabel = relabelling(choices.mapping, known, choices.groups)
    films: dict[str, Film] = {}
    remarks: list[str] = []
    for name, coding in mine.items():
        track = choices.tracks.get(name, choices.tracks.get(""))
        its_own = relabelling({}, known, choices.groups)
        our_line = line(coding, track, "--track", its_own, _shift(coding, coding.origin))
        folder = coding.path if coding.path.is_dir() else None
        films[name] = Film(name, {ours_name: our_line}, folder, frozenset(one.track for one in our_line.labels))
    raters = [ours_name]
    for number, path in enumerate(coders, 1):
        found = theirs[path]
        partners = _partners(found, list(films))
        if not partners:
            named = sorted({coding.film or film_name(coding.path.name) for coding in found})
            raise AnnotationError(
                f"no film of {path} is one of ours: there it is {_some(named)}, ours are {_some(films)}; rename the "
                "files, or give the film in a column"
            )
        alone = sorted({coding.film or film_name(coding.path.name) for coding in found if id(coding) not in partners})
        if alone:
            remarks.append(f"{path}: {_some(alone)} left out: not among our films")
        for coding in found:
            if id(coding) not in partners:
                continue
            name = partners[id(coding)]
            rater = _rater(path, coding, name if len(set(partners.values())) == 1 else "") or (
                "coder" if len(coders) == 1 else f"coder {number}"
            )
            rater = f"{rater} (coder)" if rater == ours_name else rater
            lines = films[name].lines
            if rater in lines:
                raise AnnotationError(f"{path}: {rater} codes the film {name} twice: give one of the files")
            shift = _shift(coding, mine[name].origin)
            lines[rater] = line(coding, choices.tier, "--tier", relabel, shift)
            raters += [rater] if rater not in raters else []
        if points := sum(coding.points for coding in found if id(coding) in partners):
            remarks.append(f"{path}: {points} annotation{'s' if points > 1 else ''} without a duration left out")
    given = {same(one.label) for found in theirs.values() for coding in found for one in coding.annotations}
    if unused := [label for label in choices.mapping if same(label) not in given]:
        remarks.append(f"--map: no coder gives the label {_some(unused)}")
    uncoded = [name for name, film in films.items() if len(film.lines) < 2]
    if uncoded:
        remarks.append(f"{_some(uncoded)} left out: no coder has coded {'it' if len(uncoded) == 1 else 'them'}")
    both = tuple(film for film in films.values() if len(film.lines) > 1)
    remarks += [remark for rater in raters[1:] if (remark := _outside(both, ours_name, rater))]
    labels = _common_labels(both, raters, known, remarks)
    return Material(both, tuple(raters), labels, tuple(remarks))


def _outside(films: Iterable[Film], ours: str, rater: str) -> str:
    """Return a remark on films in which much of a coder's labelled time is outside of the time that is compared."""
    found = []
    for film in films:
        if rater not in film.lines:
            continue
        its, coded = film.lines[rater], film.lines[ours].spans
        whole = sum(one.end - one.start for one in its.labels)
        if whole - sum(one.end - one.start for one in its.within(coded)) > max(OUTSIDE * whole, 1.0):
            found.append(f"{film.name} ({coded[0][0]:g} to {max(end for _, end in coded):g} s)" if coded else film.name)
    if not found:
        return ""
    return (
        f"{rater}: much of the labelled time is left out, because {ours} has none there: {_some(found)}; are all "
        "times in seconds from the film's beginning?"
    )


def _mine(path: Path, found: Iterable[Coding]) -> dict[str, Coding]:
    mine: dict[str, Coding] = {}
    for coding in found:
        name = coding.film or film_name(path.name)
        if name in mine:
            by = f", by {mine[name].coder} and {coding.coder}" if coding.coder else ""
            raise AnnotationError(f"{path} has the film {name} twice{by}: OURS is one rater's; give each film once")
        mine[name] = coding
    return mine


def _partners(found: Sequence[Coding], films: Sequence[str]) -> dict[int, str]:
    """Return the film of ours that each coding is about, by the coding's ``id``."""
    by_case = {name.casefold(): name for name in films}
    partners = {}
    for coding in found:
        named = by_case.get(coding.film.casefold()) if coding.film else None
        if named is None and coding.film is None:
            stem = film_name(coding.path.name).casefold()
            begins = [name for name in by_case if _begins(stem, name)]
            named = by_case[max(begins, key=len)] if begins else None
            if (
                named is None
                and len(films) == 1
                and len({id(each) for each in found if each.film is None}) == len(found)
            ):
                named = films[0]
        if named is not None:
            partners[id(coding)] = named
    return partners


def _rater(path: Path, coding: Coding | None, film: str) -> str:
    """Return a rater's name: from the file, else the folder's name, else the file's name without the film's."""
    if coding and coding.coder:
        return coding.coder
    if path.is_dir():
        return path.resolve().name
    stem = film_name(path.name)
    return stem[len(film) :].strip(" _-.") if film and _begins(stem, film) else stem


def _begins(stem: str, film: str) -> bool:
    """Return whether a file's name is that of a film, or begins with it, as in ``talk_anna``."""
    stem, film = stem.casefold(), film.casefold()
    return stem.startswith(film) and not stem[len(film) : len(film) + 1].isalnum()


def _shift(coding: Coding, origin: float | None) -> float:
    """Return the seconds to subtract from a coding's times, so that they count from the film's beginning."""
    if not coding.absolute:
        return 0.0
    if origin is None:
        raise AnnotationError(
            f"{coding.path} has times of day, but the times of our film begin at 0: give our events or our analysis"
        )
    return origin


def _labels(mine: Iterable[Coding], choices: Choices) -> list[str]:
    """Return our labels, or their groups if groups are compared, in a fixed order."""
    plain = dict.fromkeys(
        [label for coding in mine for label in sorted(coding.labels)]
        + sorted({one.label for coding in mine for one in coding.annotations})
    )
    relabel = relabelling({}, plain, choices.groups)
    return list(dict.fromkeys(label for each in plain if (label := relabel(each))))


def _common_labels(
    films: Iterable[Film], raters: Sequence[str], known: Sequence[str], remarks: list[str]
) -> tuple[str, ...]:
    """Return all labels that occur, ours first.

    Raises:
        AnnotationError: a coder uses none of ours, or there are more than `MOST_LABELS`.
    """
    used: defaultdict[str, set[str]] = defaultdict(set)
    for film in films:
        for rater, its in film.lines.items():
            used[rater].update(one.label for one in its.labels)
    for rater in raters[1:]:
        if not used[rater]:
            raise AnnotationError(f"{rater} gives no label, after --map: {raters[0]} knows {_some(known)}")
        if used[rater] == {WRONG}:
            raise AnnotationError(
                f"{rater} has only marked labels as wrong: to compare them, give right ones, too, or map "
                f"{WRONG} to a label with --map"
            )
        strange = sorted(used[rater] - set(known))
        if len(strange) == len(used[rater]):
            example = f"{strange[0]}={known[0] if known else 'happy'}"
            raise AnnotationError(
                f"no label of {rater} is one of ours: there are {_some(strange)}, ours are {_some(known)}; map "
                f"them, such as --map {shlex.quote(example)}"
            )
        if strange:
            remarks.append(f"{rater}: {_some(strange)} {'is' if len(strange) == 1 else 'are'} no label of ours")
    every = {label for labels in used.values() for label in labels}
    if len(every) > MOST_LABELS:
        raise AnnotationError(
            f"there are {len(every):,} different labels, more than {MOST_LABELS}: {_some(sorted(every))}; if they are "
            "words or notes, choose another tier or column, or map them"
        )
    return (*(label for label in known if label in every), *sorted(every - set(known)))


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
