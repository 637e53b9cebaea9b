"""Whether OpenVINO can be tested here. Its plug-in accepts no processor but Intel's, though OpenVINO runs on others."""

import ctypes
from importlib.util import find_spec

import onnxruntime
import pytest

INTEL = 0x8086


def intel() -> bool:
    """Return whether onnxruntime takes this machine's processor for one of Intel."""
    return _cpu().device.vendor_id == INTEL


def need_openvino() -> None:
    """Make OpenVINO's plug-in accept this process's processor, or skip the test.

    On a processor of another vendor, onnxruntime's own note of the vendor is changed before the plug-in is registered.
    """
    if find_spec("onnxruntime_ep_openvino") is None:
        pytest.skip("onnxruntime-ep-openvino is not installed: it has wheels for x86-64 only")
    if intel():
        return
    device = _cpu().device
    at = ctypes.c_void_p.from_address(id(device) + object.__basicsize__).value  # the C++ object behind pybind11's
    assert at is not None
    note = ctypes.c_uint32.from_address(at + ctypes.sizeof(ctypes.c_uint32))  # its second field, after the type
    assert note.value == device.vendor_id, "onnxruntime keeps the vendor elsewhere now"
    note.value = INTEL


def _cpu() -> "onnxruntime.OrtEpDevice":
    return next(found for found in onnxruntime.get_ep_devices() if found.ep_name == "CPUExecutionProvider")
