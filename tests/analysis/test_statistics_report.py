"""Sections on trials, zones and lines: labels are those of the model, whatever their columns are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.analysis.statistics_report import sections
from fer_stream.events.rows import column_of, label_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("label", ["happy", "unknown", "longest_visit", "label", "with space", "s"])
def test_the_label_of_a_column_is_found_again(label: str) -> None:
    assert label_of(column_of(label)) == label


@pytest.mark.parametrize("column", ["film", "trial", "start", "online_s", "unknown_s", "in_view_s", "visits"])
def test_other_columns_have_no_label(column: str) -> None:
    assert label_of(column) is None


def test_a_label_with_the_name_of_a_column_keeps_its_name(tmp_path: Path) -> None:
    head = "camera,trial,online_s,unknown_s,withheld,faces,in_view_s,uncertain_s,happy_s,label_unknown_s"
    (tmp_path / "statistics.csv").write_text(f"{head}\ntalk,task,9,1,0,2,8,2,4,2\n")
    (section,) = sections(tmp_path)
    assert section.head == ("trial", "faces", "seconds in view", "happy %", "unknown %", "uncertain %")
    assert section.rows == [("task", 2, 8.0, 50.0, 25.0, 25.0)]
