"""Quantize the convolutions of an ONNX file to 8-bit integers: under half the time, a quarter of the size.

Each convolution's input gets a scale, fitted while the net predicts some faces, and the weights of each channel get one
(Jacob et al. 2018, arXiv:1712.05877). Weights use only 7 of the 8 bits: processors without VNNI add two products in 16
bits, which would overflow with 8, and a file must give the same results on all processors. The sums between the
convolutions, the gates and the last layer stay float32: they cost little, and the results are closer to the unquantized
net's. `training.export` calls this.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FACES = 512
"""Number of faces that the scales are fitted on."""

BATCH = 64


def quantize(path: Path, faces: NDArray[np.uint8]) -> None:
    """Replace an ONNX file by its quantized version, which has no metadata.

    Args:
        path: the file; its input is ``faces``, float32 ``[N, 1, H, W]``.
        faces: uint8 ``[N, H, W]``; `FACES` of them, drawn at random, are used to fit the scales.
    """
    drawn = np.random.default_rng(0).permutation(len(faces))[:FACES]
    logging.getLogger().addFilter(_no_advice)
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(path, prepared)
            quantization.quantize_static(
                prepared,
                path,
                _Batches(faces[drawn]),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=["Conv"],
                calibrate_method=quantization.CalibrationMethod.MinMax,
                per_channel=True,
                reduce_range=True,
            )
    finally:
        logging.getLogger().removeFilter(_no_advice)


class _Batches(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, faces: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = iter(np.split(faces, range(BATCH, len(faces), BATCH)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"faces": batch[:, None].astype(np.float32)}


def _no_advice(record: logging.LogRecord) -> bool:
    """Drop onnxruntime's advice to pre-process the model, which `quantize` has already done."""
    return "pre-process" not in record.getMessage()
