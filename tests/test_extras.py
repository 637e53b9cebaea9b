"""What is not installed is named, with what brings it."""

from __future__ import annotations

import math

import pytest

from fer_stream.errors import PluginError
from fer_stream.extras import require


def test_what_is_there_is_imported() -> None:
    assert require("math", "analyze") is math


def test_what_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(PluginError, match=r"needs nothing_like_it .*pip install 'fer-stream\[analyze\]'"):
        require("nothing_like_it.at_all", "analyze")
