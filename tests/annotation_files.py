"""Files of annotations as other programs write them, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def eaf(
    tiers: str, slots: Sequence[int | None], version: str = "3.0", media: str = 'MEDIA_URL="file:///C:/films/talk.mp4"'
) -> str:
    order = "".join(
        f'<TIME_SLOT TIME_SLOT_ID="ts{number}"{"" if at is None else f" TIME_VALUE={chr(34)}{at}{chr(34)}"}/>'
        for number, at in enumerate(slots, 1)
    )
    descriptor = f'<MEDIA_DESCRIPTOR {media} MIME_TYPE="video/mp4"/>' if media else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+00:00" '
        f'FORMAT="{version}" VERSION="{version}"><HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">{descriptor}</HEADER>'
        f"<TIME_ORDER>{order}</TIME_ORDER>{tiers}</ANNOTATION_DOCUMENT>"
    )


def tier(name: str, *annotations: str, annotator: str = "") -> str:
    inside = "".join(f"<ANNOTATION>{each}</ANNOTATION>" for each in annotations)
    return f'<TIER TIER_ID="{name}" LINGUISTIC_TYPE_REF="default" ANNOTATOR="{annotator}">{inside}</TIER>'


def aligned(number: int, start: int, end: int, text: str) -> str:
    return (
        f'<ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" TIME_SLOT_REF1="ts{start}" TIME_SLOT_REF2="ts{end}">'
        f"<ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>"
    )


def referring(number: int, parent: int, text: str, previous: int | None = None) -> str:
    after = f' PREVIOUS_ANNOTATION="a{previous}"' if previous else ""
    return (
        f'<REF_ANNOTATION ANNOTATION_ID="a{number}" ANNOTATION_REF="a{parent}"{after}>'
        f"<ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></REF_ANNOTATION>"
    )


BORIS_7 = """Observation id\tobservation #1\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Media file(s)\t\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Player #1\ttalk.mp4\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Time offset (s)\t0.0\t\t\t\t\t\t\t
\t\t\t\t\t\t\t\t
Time\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tBehavioral category\tComment\tStatus
3.300\tC:\\films\\talk.mp4\t359.960\t25.0\tanna\thappy\t\t\tSTART
7.750\tC:\\films\\talk.mp4\t359.960\t25.0\tanna\thappy\t\t\tSTOP
9.000\tC:\\films\\talk.mp4\t359.960\t25.0\tanna\tblink\t\t\tPOINT
9.900\tC:\\films\\talk.mp4\t359.960\t25.0\tNo focal subject\tsad\t\t\tSTART
16.200\tC:\\films\\talk.mp4\t359.960\t25.0\tNo focal subject\tsad\t\t\tSTOP
"""
"""A table of events in the form of version 7: about the observation first, then the heading."""

BORIS_9 = """Observation id\tObservation date\tDescription\tObservation duration\tObservation type\tSource\t\
Media duration (s)\tFPS (frame/s)\tSubject\tBehavior\tBehavioral category\tBehavior type\tTime\tMedia file name\t\
Image index\tImage file path\tComment
one\t2026-01-01 10:00:00\t\t12.9\tMedia file(s)\tplayer #1:films/talk.mp4\t359.96\t25.0\tanna\thappy\t\tSTART\t3.3\t\
films/talk.mp4\t82\tNA\t
one\t2026-01-01 10:00:00\t\t12.9\tMedia file(s)\tplayer #1:films/talk.mp4\t359.96\t25.0\tanna\thappy\t\tSTOP\t7.75\t\
films/talk.mp4\t193\tNA\t
one\t2026-01-01 10:00:00\t\t12.9\tMedia file(s)\tplayer #1:films/talk.mp4\t359.96\t25.0\tNo focal subject\tsad\t\t\
START\t9.9\tfilms/talk.mp4\t247\tNA\t
one\t2026-01-01 10:00:00\t\t12.9\tMedia file(s)\tplayer #1:films/talk.mp4\t359.96\t25.0\tNo focal subject\tsad\t\t\
STOP\t16.2\tfilms/talk.mp4\t405\tNA\t
"""
"""A table of events in the form of versions 8 and 9."""

BORIS_AGGREGATED = """Observation id,Observation date,Description,Media file,Total length,FPS,Subject,Behavior,\
Behavioral category,Modifiers,Behavior type,Start (s),Stop (s),Duration (s),Comment start,Comment stop
one,2016-12-01 23:01:31,,talk.mp4,359.960,25.0,anna,happy,,,STATE,3.300,7.750,4.450,,
one,2016-12-01 23:01:31,,talk.mp4,359.960,25.0,anna,blink,,,POINT,9.0,9.0,NA,,
one,2016-12-01 23:01:31,,talk.mp4,359.960,25.0,No focal subject,sad,,,STATE,9.900,16.200,6.300,,
"""

BORIS_PROJECT = """{"project_format_version": "7.0", "behaviors_conf": {"0": {"type": "State event", "code": "happy"},
"1": {"type": "Point event", "code": "blink"}, "2": {"type": "State event", "code": "sad"}},
"observations": {"one": {"file": {"1": ["films/talk.mp4"], "2": []}, "type": "MEDIA", "events": [
[3.3, "anna", "happy", "", "", 82], [7.75, "anna", "happy", "", "", 193], [9.0, "anna", "blink", "", "", 225],
[9.9, "", "sad", "", ""], [16.2, "", "sad", "", ""]]}}}
"""
