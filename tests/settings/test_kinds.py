"""The checks of the kinds of values."""

import pytest

from fer_stream.settings import kinds


def test_host_and_port() -> None:
    assert kinds.host_port("127.0.0.1:9100") == ("127.0.0.1", 9100)
    assert kinds.host_port("[::1]:0") == ("::1", 0)
    for wrong in ("9100", ":9100", "a:b", "a:-1", "a:65536", "a:", ""):
        with pytest.raises(ValueError, match="HOST:PORT"):
            kinds.host_port(wrong)
