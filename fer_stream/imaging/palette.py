"""One colour for each label, distinguishable by colour-blind people.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

COLOURS = {
    "happy": "#e69f00",
    "surprise": "#56b4e9",
    "sad": "#0072b2",
    "angry": "#d55e00",
    "disgust": "#009e73",
    "fear": "#cc79a7",
    "contempt": "#f0e442",
    "neutral": "#6b6b6b",
    "positive": "#e69f00",
    "negative": "#0072b2",
}
"""Colours of the built-in labels, as ``#rrggbb``."""

UNCERTAIN = "#c8c8c8"
"""Colour of a face without a sure label."""

OTHERS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Colours of all other labels."""


def colour(label: str | None) -> str:
    """Return a label's colour as ``#rrggbb``; a label that is not built in always gets the same one of `OTHERS`."""
    if label is None:
        return UNCERTAIN
    return COLOURS.get(label) or OTHERS[sum(label.encode()) % len(OTHERS)]


def ink_on(paper: str) -> str:
    """Return black or white, whichever has more contrast to a colour (``#rrggbb``): at least 4.5 (WCAG 2)."""
    shares = [part / 255 for part in bytes.fromhex(paper[1:])]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shares)
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"
