from __future__ import annotations

import pytest

from fer_stream.errors import PluginError, SourceError
from fer_stream.settings.tree import CameraSettings
from fer_stream.sources import open_source
from fer_stream.sources.demo import Demo
from fer_stream.sources.video import Recording


def test_the_address_chooses_the_plug_in(make_video):
    path = make_video("v.avi")
    assert isinstance(open_source(CameraSettings(source="demo")), Demo)
    assert isinstance(open_source(CameraSettings(source="demo:")), Demo)
    assert isinstance(open_source(CameraSettings(source=str(path))), Recording)
    assert isinstance(open_source(CameraSettings(source=f"media:{path}")), Recording)


def test_a_named_plug_in_has_precedence():
    assert isinstance(open_source(CameraSettings(source="anything", plugin="demo")), Demo)
    with pytest.raises(SourceError, match="no file or folder 'demo'"):
        open_source(CameraSettings(source="demo", plugin="media"))


def test_an_unknown_plug_in():
    with pytest.raises(PluginError, match=r"there is no source 'nix'; installed are: .*media"):
        open_source(CameraSettings(plugin="nix"))


def test_an_unknown_scheme_is_left_to_ffmpeg():
    with pytest.raises(SourceError, match="nix://host/x cannot be opened"):
        open_source(CameraSettings(source="nix://host/x"))
