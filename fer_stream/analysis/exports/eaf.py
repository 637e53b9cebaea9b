"""Writes ELAN Annotation Format 3.0 (https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf).

Each track has two tiers: one with its stay, and one with its labels. The labels are a controlled vocabulary, so ELAN
offers them when a label is corrected.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from mimetypes import guess_type
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree import ElementTree as Xml

from fer_stream.analysis.exports.recording import label_text, rows, track_name
from fer_stream.interchange.annotations import IN_VIEW

if TYPE_CHECKING:
    from fer_stream.analysis.exports.recording import Recording

SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
"""The schema of the format, by which ELAN knows its version."""

_XSI = "http://www.w3.org/2001/XMLSchema-instance"

_LABELS, _STAYS, _LANGUAGE = "label", "stay", "und"

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot contain, such as control characters in a label."""

_CONSTRAINTS = {
    "Time_Subdivision": "Time subdivision of parent annotation's time interval, no time gaps allowed within this "
    "interval",
    "Symbolic_Subdivision": "Symbolic subdivision of a parent annotation. Annotations refering to the same parent are "
    "ordered",
    "Symbolic_Association": "1-1 association with a parent annotation",
    "Included_In": "Time alignable annotations within the parent annotation's time interval, gaps are allowed",
}
"""The constraints that ELAN writes into each file."""


def files(recording: Recording) -> dict[str, bytes]:
    """Return the content of ``NAME.eaf``."""
    attributes = {
        "AUTHOR": recording.author,
        "DATE": datetime.now(UTC).isoformat(timespec="seconds"),
        "FORMAT": "3.0",
        "VERSION": "3.0",
        f"{{{_XSI}}}noNamespaceSchemaLocation": SCHEMA,
    }
    document = Xml.Element("ANNOTATION_DOCUMENT", attributes)
    found = list(rows(recording.spans))
    _header(document, recording, sum(len(spans) for _, _, spans in found))
    times = sorted(at for _, _, spans in found for start, end, _ in spans for at in (start, end))
    order = Xml.SubElement(document, "TIME_ORDER")
    slots: dict[int, list[str]] = {}
    for number, at in enumerate(times, 1):
        Xml.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": f"ts{number}", "TIME_VALUE": str(at)})
        slots.setdefault(at, []).append(f"ts{number}")
    count = 0
    for track, labelled, spans in found:
        name = track_name(track)
        tier = Xml.SubElement(
            document,
            "TIER",
            {
                "ANNOTATOR": recording.author,
                "LINGUISTIC_TYPE_REF": _LABELS if labelled else _STAYS,
                "PARTICIPANT": name,
                "TIER_ID": name if labelled else f"{name} {IN_VIEW}",
            },
        )
        for start, end, span in spans:
            count += 1
            references = {"ANNOTATION_ID": f"a{count}"}
            references |= {"TIME_SLOT_REF1": slots[start].pop(0), "TIME_SLOT_REF2": slots[end].pop(0)}
            annotation = Xml.SubElement(Xml.SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION", references)
            Xml.SubElement(annotation, "ANNOTATION_VALUE").text = label_text(span.label)
    _definitions(document, recording)
    for element in document.iter():
        element.text = element.text and _NO_XML.sub("\N{REPLACEMENT CHARACTER}", element.text)
        element.attrib.update({key: _NO_XML.sub("\N{REPLACEMENT CHARACTER}", value) for key, value in element.items()})
    Xml.indent(document)
    return {f"{recording.name}.eaf": Xml.tostring(document, "utf-8", xml_declaration=True) + b"\n"}


def _header(document: Xml.Element, recording: Recording, count: int) -> None:
    header = Xml.SubElement(document, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    if recording.media:
        kind = guess_type(recording.title)[0] or "unknown"
        url = recording.media if "://" in recording.media else quote(recording.media)
        # An absolute address would publish the names of the user's folders; ELAN also tries the relative one.
        relative = {} if "://" in url else {"RELATIVE_MEDIA_URL": url if url.startswith(".") else f"./{url}"}
        Xml.SubElement(header, "MEDIA_DESCRIPTOR", {"MEDIA_URL": url, "MIME_TYPE": kind} | relative)
    Xml.SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"}).text = str(count)


def _definitions(document: Xml.Element, recording: Recording) -> None:
    """Append the types of the tiers and what they refer to, in the order of the schema."""
    for name, controlled in ((_STAYS, {}), (_LABELS, {"CONTROLLED_VOCABULARY_REF": "labels"})):
        attributes = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": name, "TIME_ALIGNABLE": "true"}
        Xml.SubElement(document, "LINGUISTIC_TYPE", controlled | attributes)
    language = {"LANG_DEF": "http://cdb.iso.org/lg/CDB-00130975-001", "LANG_ID": _LANGUAGE}
    Xml.SubElement(document, "LANGUAGE", language | {"LANG_LABEL": "undetermined (und)"})
    for stereotype, description in _CONSTRAINTS.items():
        Xml.SubElement(document, "CONSTRAINT", {"DESCRIPTION": description, "STEREOTYPE": stereotype})
    vocabulary = Xml.SubElement(document, "CONTROLLED_VOCABULARY", {"CV_ID": "labels"})
    Xml.SubElement(vocabulary, "DESCRIPTION", {"LANG_REF": _LANGUAGE}).text = "apparent expressions"
    for number, label in enumerate(recording.vocabulary, 1):
        entry = Xml.SubElement(vocabulary, "CV_ENTRY_ML", {"CVE_ID": f"cve{number}"})
        Xml.SubElement(entry, "CVE_VALUE", {"LANG_REF": _LANGUAGE}).text = label
