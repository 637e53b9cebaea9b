"""Reads files of other programs: annotations of coders (`annotations`), and markers of trials (`markers`).

`sheets` reads the text of tables, whatever their encoding, delimiter and notation of times.
"""
