"""With ``--provider NAME``, detectors and classifiers that ask for no provider run on that one instead of the CPU."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import processors
import pytest

from fer_stream.inference.classifiers.onnx import OnnxClassifier
from fer_stream.inference.detectors.mtcnn import MTCNN

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def provider(pytestconfig: pytest.Config) -> Iterator[None]:
    """Use the provider of the option, also where settings name the CPU, their default."""
    instead = pytestconfig.getoption("--provider")
    if instead == "openvino":
        processors.need_openvino()
    with pytest.MonkeyPatch.context() as patch:
        for kind in (MTCNN, OnnxClassifier) if instead != "cpu" else ():
            patch.setattr(kind, "__init__", _on(instead, kind.__init__))
        yield


def _on(provider: str, original: Any) -> Any:
    def init(*positional: Any, **named: Any) -> None:
        given = inspect.signature(original).bind(*positional, **named)
        given.apply_defaults()
        if given.arguments["provider"] == "cpu":
            given.arguments["provider"] = provider
        original(*given.args, **given.kwargs)

    return init
