"""Reads files of other programs: annotations of coders (`formats`), and markers of trials (`markers`).

`annotations` has the values that the readers of annotations return. `sheets` parses tables in various encodings, with
various delimiters and notations of times.
"""
