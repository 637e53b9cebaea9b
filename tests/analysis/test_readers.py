"""R, pandas, Polars and DuckDB read all tables, and agree about every value."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from typing import TYPE_CHECKING, Any

import duckdb
import pandas
import polars
import pytest

import fer_stream
from fer_stream.analysis import Analysis
from fer_stream.analysis.columns import Layout, PictureLayout
from fer_stream.analysis.tables import OPENFACE, RecordingFiles, TableFiles
from fer_stream.settings.tree import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_stream.analysis.columns import Columns

LABELS = ("very happy", 'sad, "tired"', "naïve", "NA", "none of them", "50%;x'y", "happy-ish.2")
"""Labels with what a reader of CSV may take for something else."""

Table = dict[str, list[Any]]

R = """
arguments <- commandArgs(trailingOnly = TRUE)
table <- read.csv(arguments[1], na.strings = "", check.names = FALSE, encoding = "UTF-8")
for (name in names(table)) {
  column <- table[[name]]
  writeLines(enc2utf8(paste0("name=", name)), useBytes = TRUE)
  writeLines(class(column))
  text <- if (is.numeric(column)) sprintf("%.17g", column) else enc2utf8(as.character(column))
  writeLines(ifelse(is.na(column), "missing", paste0("=", text)), useBytes = TRUE)
}
"""


def in_r(path: Path, columns: Columns) -> Table:
    """Return the table as base R reads it, in a locale with a decimal comma."""
    command = ["Rscript", "--vanilla", "-e", R, str(path)]
    done = subprocess.run(command, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
    found: Table = {}
    lines = iter(done.stdout.decode().splitlines())
    for name, column in zip((line.removeprefix("name=") for line in lines if line.startswith("name=")), columns.items()):
        del name, column
    lines = iter(done.stdout.decode().splitlines())
    name = kind = ""
    for line in lines:
        if line.startswith("name="):
            name, kind = line.removeprefix("name="), next(lines)
            found[name] = []
            continue
        convert: Callable[[str], Any] = {
            "integer": int, "numeric": float, "character": str, "logical": lambda text: text == "TRUE",
        }[kind]  # fmt: skip
        found[name].append(None if line == "missing" else convert(line.removeprefix("=")))
    return found
