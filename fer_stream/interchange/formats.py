"""Detects the format of a file of annotations by its content, and reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from fer_stream.errors import AnnotationError
from fer_stream.interchange import boris, elan, own, tables
from fer_stream.interchange.annotations import IN_VIEW
from fer_stream.interchange.sheets import parse_sheet, read_bytes, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from fer_stream.interchange.annotations import Coding

SUFFIXES = (".eaf", ".boris", ".csv", ".tsv", ".txt", ".jsonl")
"""Suffixes of files that are taken from a folder."""


def read_annotations(path: Path) -> list[Coding]:
    """Return the annotations in a file or folder: one `Coding` for each film and coder.

    A file may be of ELAN (.eaf), BORIS (events or aggregated events as CSV or TSV, or a project) or BIDS (events.tsv),
    a table with start, end and label, or annotations exported from the history page. It may also be of fer_stream:
    events as JSON lines, or a table of faces or events. A folder may be one of `fer-stream analyze`. Of any other
    folder, the analyses in its subfolders are read, or else its files; analyses of films with the same name are named
    like their folders. Stays of faces in our exports (`IN_VIEW`) are not labels: they only give the part of the film
    that was coded.

    Raises:
        AnnotationError: it cannot be read, is of another kind, or has no annotation.
    """
    if path.is_dir():
        return _folder(path)
    found = [_without_stays(coding) for coding in _file(path)]
    if not found:
        raise AnnotationError(f"{path} has no annotation with a duration: give another file")
    return found


def _folder(folder: Path) -> list[Coding]:
    if own.is_analysis(folder):
        return own.read_analysis(folder)
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise AnnotationError(f"{folder} cannot be read: {(error.strerror or 'error').lower()}") from error
    analyses = [each for each in inside if each.is_dir() and own.is_analysis(each)]
    if not analyses and (missing := own.missing(folder)):
        raise AnnotationError(missing)
    files = [] if analyses else [each for each in inside if each.is_file() and each.suffix.lower() in SUFFIXES]
    found = [coding for each in analyses for coding in own.read_analysis(each)]
    if len({coding.film for coding in found}) < len(found):  # films of one name, in folders of different names
        found = [replace(coding, film=coding.path.name) for coding in found]
    found += [_without_stays(coding) for each in files for coding in _file(each)]
    if not found:
        raise AnnotationError(
            f"{folder} has no analysis of fer-stream and no file with annotations ({', '.join(SUFFIXES)})"
        )
    return found


def _without_stays(coding: Coding) -> Coding:
    labels = tuple(one for one in coding.annotations if one.label != IN_VIEW)
    if len(labels) == len(coding.annotations):
        return coding
    whole = min(one.start for one in coding.annotations), max(one.end for one in coding.annotations)
    return replace(coding, annotations=labels, spans=coding.spans or (whole,))


def _file(path: Path) -> list[Coding]:
    content = read_bytes(path)
    text = read_text(path)
    begin = text.lstrip("\ufeff \t\r\n")[:1]
    if begin == "<":
        return elan.read(path, content)
    if text.startswith(("WEBVTT", "\ufeffWEBVTT")):
        raise AnnotationError(f"{path} has subtitles, which are not read: give the annotations as EAF, CSV or TSV")
    if begin in ("{", "["):
        return _json(path, text)
    heading = {name.strip().strip('"').lower() for name in _first(text)}
    if heading >= tables.HISTORY_COLUMNS:
        return tables.read_history(parse_sheet(path, text))
    if heading >= {"onset", "duration"}:
        return tables.read_bids(parse_sheet(path, text))
    if heading >= own.EVENT_ROWS:
        return own.read_event_table(parse_sheet(path, text))
    if heading >= own.ROWS:
        return own.read_faces(parse_sheet(path, text))
    for columns, read in ((boris.AGGREGATED, boris.read_aggregated), (boris.EVENTS, boris.read_events)):
        try:
            sheet = parse_sheet(path, text, columns)
        except AnnotationError:
            continue
        return read(sheet)
    return tables.read_plain(parse_sheet(path, text))


def _first(text: str) -> list[str]:
    """Return the cells of the first line, whichever the delimiter."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return max((line.split(each) for each in "\t;,"), key=len)


def _json(path: Path, text: str) -> list[Coding]:
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    except RecursionError as error:
        raise AnnotationError(f"{path} is nested too deeply to be a file of BORIS: give another file") from error
    if isinstance(whole, dict) and "observations" in whole and "behaviors_conf" in whole:
        return boris.read_project(path, whole)
    if isinstance(whole, list) or (isinstance(whole, dict) and "specversion" not in whole):
        raise AnnotationError(
            f"{path} is JSON, but neither a project of BORIS nor events of fer-stream: give another file"
        )
    return own.read_events(path, text.encode())
