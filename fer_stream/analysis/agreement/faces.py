"""Divides films into faces, if coders annotated our tracks one by one, as on the history page."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from fer_stream.interchange.annotations import Annotation, Coding


def by_face(
    mine: Mapping[str, Coding], coders: Mapping[Path, Sequence[Coding]]
) -> tuple[dict[str, Coding], dict[Path, list[Coding]]]:
    """Return ours and the coders' with each face that a coder has annotated as a film of its own.

    So several faces may be in view at once, and a coder's label is compared with ours of the same track. Codings of
    films that are not ours stay as they are.

    Args:
        mine: ours, by film.
        coders: the codings of each file, which name our tracks.
    """
    ours = {film.casefold(): _faces(coding) for film, coding in mine.items()}
    faces: dict[str, Coding] = {}
    theirs: dict[Path, list[Coding]] = {path: [] for path in coders}
    for path, coding in ((path, coding) for path, codings in coders.items() for coding in codings):
        film = next((name for name in mine if coding.film and name.casefold() == coding.film.casefold()), None)
        if film is None:
            theirs[path].append(coding)
            continue
        for track, own in _faces(coding).items():
            name = f"{film}, face {track}"
            theirs[path].append(replace(coding, film=name, annotations=tuple(own)))
            faces[name] = replace(mine[film], film=name, annotations=tuple(ours[film.casefold()].get(track, ())))
    return faces, theirs


def _faces(coding: Coding) -> dict[str, list[Annotation]]:
    found: defaultdict[str, list[Annotation]] = defaultdict(list)
    for one in coding.annotations:
        found[one.track].append(one)
    return dict(found)


def are_of_faces(codings: Iterable[Coding]) -> bool:
    """Return whether all codings are of single faces of ours, and name our tracks."""
    return all(coding.sparse and all(coding.tracks) for coding in codings)
