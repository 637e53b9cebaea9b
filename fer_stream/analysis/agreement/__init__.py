"""Agreement of raters who coded the same films.

`films` reads the files and matches the films, `lines` makes each rater's line of labels, `compare` computes the
agreement with the formulas of `measures`, `calibration` fits a correction, and `report` and `files` write the results.
"""
