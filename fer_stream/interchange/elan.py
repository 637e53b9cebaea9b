"""Reads annotations of ELAN: EAF, versions 2.7 to 3.0.

The format: https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf. A tier becomes a track. An annotation
without a text gets its tier's name as its label, because some coders use a tier for each label.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from fer_stream.errors import AnnotationError
from fer_stream.interchange.annotations import Annotation, codings, film_name

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.interchange.annotations import Coding, Span


def read(path: Path, content: bytes) -> list[Coding]:
    """Return the annotations in an EAF file: one `Coding` for each annotator that its tiers name.

    Raises:
        AnnotationError: it is damaged, or not EAF.
    """
    document = _Document(path, content)
    found: defaultdict[str, list[Annotation]] = defaultdict(list)
    tiers = {tier.get("TIER_ID", ""): tier for tier in document.root.iter("TIER")}
    for name, tier in tiers.items():
        annotator = tier.get("ANNOTATOR", "").strip()
        found[annotator] += [Annotation(*span, text or name, name) for span, text in document.spans_of(tier)]
    film = document.film()
    return codings(path, "ELAN", {(film, coder or None): each for coder, each in found.items()})


class _Document:
    """A parsed document, with the times of its annotations."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        if b"<!doctype html" in content[:4096].lower():
            raise AnnotationError(f"{path} is a web page, not annotations: download the file again")
        if b"<!DOCTYPE" in content[:4096] or b"<!ENTITY" in content:  # ELAN writes none; they can blow up a parser
            raise self._bad("it defines entities, which ELAN does not write")
        try:
            self.root = Xml.fromstring(content)  # noqa: S314  (no entities, as checked above)
        except (Xml.ParseError, ValueError, LookupError) as error:
            raise self._bad(f"{error}; it may be incomplete") from error
        if self.root.tag != "ANNOTATION_DOCUMENT":
            raise AnnotationError(f"{path} is XML, but not of ELAN: its first element is {self.root.tag:.60}")
        units = next((each.get("TIME_UNITS", "milliseconds") for each in self.root.iter("HEADER")), "milliseconds")
        if units != "milliseconds":
            raise self._bad(f"its times are in {units}; ELAN writes milliseconds")
        media = list(self.root.iter("MEDIA_DESCRIPTOR"))
        self._media = next((each for each in media if each.get("MIME_TYPE", "").startswith("video")), None)
        if self._media is None and media:
            self._media = media[0]
        # ELAN can skip the beginning of a film: this is the time in the film at which ELAN's time is 0.
        offset = self._media.get("TIME_ORIGIN", "0") if self._media is not None else "0"
        self._offset = self._milliseconds(offset, "TIME_ORIGIN")
        self._slots = {
            slot.get("TIME_SLOT_ID", ""): self._milliseconds(value, "TIME_VALUE")
            if (value := slot.get("TIME_VALUE")) is not None
            else None
            for slot in self.root.iter("TIME_SLOT")
        }
        self._spans: dict[str, Span] = {}
        self._find_spans()

    def _bad(self, what: str) -> AnnotationError:
        return AnnotationError(f"{self._path} cannot be read as a file of ELAN: {what}")

    def _milliseconds(self, text: str, what: str) -> float:
        try:
            return int(text) / 1000
        except ValueError:
            raise self._bad(f"{what} {text!r:.40} is not a number of milliseconds") from None

    def film(self) -> str | None:
        """Return the name of the film that was coded, if the file has one."""
        if self._media is None:
            return None
        address = self._media.get("MEDIA_URL") or self._media.get("RELATIVE_MEDIA_URL") or ""
        return film_name(address) or None

    def spans_of(self, tier: Xml.Element) -> list[tuple[Span, str]]:
        """Return the span and text of each annotation of a tier."""
        return [
            (self._spans[each.get("ANNOTATION_ID", "")], (each.findtext("ANNOTATION_VALUE") or "").strip())
            for each in tier.iterfind("ANNOTATION/*")
        ]

    def _find_spans(self) -> None:
        """Find the span of every annotation: from time slots, then those that refer to another annotation."""
        pending: list[list[Xml.Element]] = []
        for tier in self.root.iter("TIER"):
            aligned = tier.findall("ANNOTATION/ALIGNABLE_ANNOTATION")
            self._interpolate([slot for each in aligned for slot in self._references(each)])
            for each in aligned:
                start, end = (self._slots[slot] for slot in self._references(each))
                if start is None or end is None:
                    raise self._bad(f"annotation {each.get('ANNOTATION_ID')} has no time, nor has one beside it")
                self._spans[each.get("ANNOTATION_ID", "")] = (start + self._offset, end + self._offset)
            groups: defaultdict[str, list[Xml.Element]] = defaultdict(list)
            for each in tier.iterfind("ANNOTATION/REF_ANNOTATION"):
                groups[each.get("ANNOTATION_REF", "")].append(each)
            pending += groups.values()
        while pending:
            left = [group for group in pending if not self._divide(group)]
            if len(left) == len(pending):
                parent = left[0][0].get("ANNOTATION_REF")
                raise self._bad(f"an annotation refers to {parent}, which is missing or refers back to it")
            pending = left

    def _references(self, annotation: Xml.Element) -> tuple[str, str]:
        slots = annotation.get("TIME_SLOT_REF1", ""), annotation.get("TIME_SLOT_REF2", "")
        for slot in slots:
            if slot not in self._slots:
                raise self._bad(f"annotation {annotation.get('ANNOTATION_ID')} refers to a time slot {slot!r}")
        return slots

    def _interpolate(self, chain: list[str]) -> None:
        """Give the slots without a time, between two that have one, times at equal distances, as ELAN shows them."""
        chain = list(dict.fromkeys(chain))
        known = [at for at, slot in enumerate(chain) if self._slots[slot] is not None]
        for before, after in pairwise(known):
            first, last = self._slots[chain[before]], self._slots[chain[after]]
            for at in range(before + 1, after):
                if first is not None and last is not None:
                    self._slots[chain[at]] = first + (last - first) * (at - before) / (after - before)

    def _divide(self, group: list[Xml.Element]) -> bool:
        """Give annotations of one parent equal parts of its span, in their order; return whether it has one yet."""
        parent = self._spans.get(group[0].get("ANNOTATION_REF", ""))
        if parent is None:
            return False
        after = {each.get("PREVIOUS_ANNOTATION", ""): each for each in group}
        at = ""
        order = []
        while at in after:
            each = after.pop(at)
            order.append(each)
            at = each.get("ANNOTATION_ID", "")
        if len(order) != len(group):  # without an order, each covers the whole, as in a symbolic association
            self._spans.update({each.get("ANNOTATION_ID", ""): parent for each in group})
            return True
        start, step = parent[0], (parent[1] - parent[0]) / len(order)
        for number, each in enumerate(order):
            self._spans[each.get("ANNOTATION_ID", "")] = (start + number * step, start + (number + 1) * step)
        return True
