from __future__ import annotations

import pytest
from camera_servers import Server, rtsp

from fer_stream import sources
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


@pytest.mark.parametrize("password", ["s3cret", "p@ss/w:rd %é&=#?"])
def test_a_password_that_is_referred_to_reaches_the_camera(password, make_video, tmp_path, monkeypatch):
    """As it is written in the file or the variable, with all special characters."""
    monkeypatch.setenv("DOOR", password)
    file = tmp_path / "door.password"
    file.write_text(f"{password}\n")
    file.chmod(0o600)
    with Server(rtsp(make_video("v.ts").read_bytes(), [], login=f"me:{password}")) as server:
        for reference in ("env:DOOR", f"file:{file}"):
            source = open_source(CameraSettings(source=f"rtsp://me:{reference}@127.0.0.1:{server.port}/stream"))
            assert source.read()
            source.close()
        file.write_text("another")
        with pytest.raises(SourceError, match=r"wrong or missing user name or password \(401\)") as caught:
            open_source(CameraSettings(source=f"rtsp://me:file:{file}@127.0.0.1:{server.port}/stream"))
        assert "another" not in str(caught.value)


def test_a_password_that_is_not_there_is_told_before_the_camera_is_asked(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read: No such file or directory") as caught:
        open_source(CameraSettings(source=f"rtsp://me:file:{tmp_path}/door.password@192.0.2.1/stream"))
    assert caught.value.transient


@pytest.mark.parametrize(
    ("source", "belongs"),
    [
        ("0", True),
        ("/dev/video2", True),
        ("demo", True),
        ("talk.mp4", True),
        ("file:///films/talk.mp4", True),
        ("screen:1", True),
        ("screen://other/1", True),
        ("rtsp://192.0.2.10/stream", False),
        ("media:rtsp://192.0.2.10/stream", False),
        ("RTSP://camera.example/stream", False),
        ("rtsp://user:file:/home/me/door.password@192.0.2.10/stream", False),
        ("rtsp://user:pass/word@127.0.0.1/stream", True),
        ("http://localhost:8080/video", True),
        ("http://[::1]/video", True),
        ("http://[2001:db8::1]/a@b", False),
        ("udp://@:5000", True),
        ("udp://0.0.0.0:5000", True),
        ("udp://239.1.2.3:5000", False),
    ],
)
def test_which_sources_belong_to_one_machine(source: str, belongs: bool) -> None:
    assert sources.local(CameraSettings(source=source)) is belongs
