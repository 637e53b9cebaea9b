from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import polars

from fer_stream.system.csv_rows import CsvWriter

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [["a", "b"], ["x\ry", "x\ny"], ["x\r\ny", "end\r\n"], ['"', ","], ["é", " "], ["plain", "1"]]


def test_every_text_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = CsvWriter(file)
        writer.writerow(ROWS[0])
        writer.writerows(ROWS[1:])
        writer.writerow(["", None])
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [*ROWS, ["", ""]]
    assert polars.read_csv(path, infer_schema=False).rows() == [*(tuple(row) for row in ROWS[1:]), (None, None)]
    assert path.read_bytes().startswith(b'a,b\n"x\ry","x\ny"\n')
    assert path.read_bytes().endswith(b"plain,1\n,\n")
