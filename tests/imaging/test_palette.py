"""Colours are distinguishable, also by colour-blind people."""

from itertools import combinations

import numpy as np
import pytest

from fer_stream.imaging.palette import COLOURS, OTHERS, UNCERTAIN, colour, ink_on
from fer_stream.types import EMOTIONS

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(paint: str) -> np.ndarray:
    value = np.array(list(bytes.fromhex(paint[1:]))) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ light.clip(0, 1)
    x, y, z = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_labels_look_different_to_everybody(sight: str) -> None:
    seen = {label: lab(SIGHT[sight] @ linear(colour(label))) for label in (*EMOTIONS, "contempt")}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 10, f"{one} and {other}"


def test_every_label_has_a_colour_and_none_that_of_an_uncertain_face() -> None:
    assert colour(None) == UNCERTAIN
    assert UNCERTAIN not in {*COLOURS.values(), *OTHERS}
    assert colour("a label of somebody's own") in OTHERS
    assert (colour("positive"), colour("negative")) == (colour("happy"), colour("sad"))


def test_ink_has_enough_contrast_on_every_colour() -> None:
    assert (ink_on("#ffffff"), ink_on("#000000")) == ("#000000", "#ffffff")
    for label in (*EMOTIONS, "contempt", None):
        paper, ink = ([0.2126, 0.7152, 0.0722] @ linear(paint) for paint in (colour(label), ink_on(colour(label))))
        assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 4.5, f"WCAG 2's contrast on {label}"
