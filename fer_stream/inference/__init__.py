"""Faces and expressions: model files, detectors, classifiers, and the worker that runs them."""
