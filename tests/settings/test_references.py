"""Sources that name where their password is: what counts as a reference, and what it is resolved to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fer_stream.errors import ConfigError, SourceError
from fer_stream.settings import options
from fer_stream.settings.kinds import Reference  # noqa: TC001  (pydantic needs it)
from fer_stream.settings.redaction import redact
from fer_stream.settings.references import displayed, in_clear, resolve, secret, without
from fer_stream.settings.sections import Section

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("source", "clear"),
    [
        ("rtsp://user:secret@192.0.2.10/stream", True),
        ("rtsp://:secret@192.0.2.10/stream", True),
        ("rtsp://user:environment@192.0.2.10/stream", True),
        ("rtsp://user:env:X:secret@192.0.2.10/", False),  # a variable with a name that cannot be: `resolve` reports it
        ("http://192.0.2.10/video?token=secret", True),
        ("http://192.0.2.10/video?token=secret&pass=env:X", True),
        ("rtsp://user:env:DOOR@192.0.2.10/video?token=secret", True),
        ("rtsp://user:env:DOOR@192.0.2.10/stream", False),
        ("rtsp://user:file:/run/secrets/door@192.0.2.10:554/stream", False),
        ("http://192.0.2.10/video?x=1&token=file:/run/secrets/door&y=2", False),
        ("rtsp://user:@192.0.2.10/stream", False),
        ("rtsp://user@192.0.2.10/stream", False),
        ("rtsp://192.0.2.10/stream", False),
        ("film.mp4", False),
        ("0", False),
    ],
)
def test_a_password_in_clear_is_noticed_and_not_displayed(source: str, clear: bool) -> None:
    assert in_clear(source) is clear
    assert "secret@" not in displayed(source).replace("X:secret@", "")
    assert "=secret" not in displayed(source)
    if not clear:
        assert displayed(source) == source


def test_a_reference_is_replaced_by_the_password_as_it_is_written_in_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOOR", "p@ss/w:rd %é")
    file = tmp_path / "door.password"
    file.write_text("s3cret&\n")
    file.chmod(0o600)
    assert resolve("rtsp://user:env:DOOR@192.0.2.10/s") == "rtsp://user:p%40ss%2Fw%3Ard%20%25%C3%A9@192.0.2.10/s"
    assert resolve(f"rtsp://user:file:{file}@192.0.2.10/s?a=b@c") == "rtsp://user:s3cret%26@192.0.2.10/s?a=b@c"
    assert resolve(f"http://h/v?token=file:{file}&key=env:DOOR") == (
        "http://h/v?token=s3cret%26&key=p%40ss%2Fw%3Ard%20%25%C3%A9"
    )
    file.write_text("other")
    assert resolve(f"rtsp://user:file:{file}@h/") == "rtsp://user:other@h/", "it is read again"
    for source in ("rtsp://user:secret@h/", "file:/films/door.mp4", "env:DOOR", "demo", "http://h/?next=env:DOOR"):
        assert resolve(source) == source


@pytest.mark.parametrize(
    ("reference", "words", "transient"),
    [
        ("env:NOT_SET", "the variable NOT_SET, which is not set", False),
        ("env:9", "the variable 9, which is not set", False),
        ("file:door.password", "door.password needs a complete path", False),
        ("file:{folder}/missing", "missing cannot be read: No such file or directory", True),
        ("file:{folder}", "cannot be read: Is a directory", True),
        ("file:{folder}/open", "others may read the password file", True),
        ("file:{folder}/empty", "empty is empty", True),
        ("file:{folder}/binary", "binary cannot be read: it is not text", True),
    ],
)
def test_each_reason_why_there_is_no_password_is_told(
    reference: str, words: str, transient: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    tmp_path.chmod(0o700)
    for name, content in (("open", b"s3cret"), ("empty", b"\n"), ("binary", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o644 if name == "open" else 0o600)
    with pytest.raises(SourceError, match=words) as caught:
        resolve(f"rtsp://user:{reference.format(folder=tmp_path)}@h/")
    assert caught.value.transient is transient
    assert "s3cret" not in str(caught.value)


class Options(Section):
    """Options of a sink that needs a secret."""

    secret: Reference | None = None


def test_a_secret_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "whsec_abc")
    named = options.read(Options, {"secret": "env:HOOK_SECRET"})
    assert named.secret == "env:HOOK_SECRET"
    assert secret(named.secret) == "whsec_abc"
    with pytest.raises(ConfigError) as caught:
        options.read(Options, {"secret": "whsec_abc"})
    assert str(caught.value) == (
        'option secret = "***": a secret does not stand in the settings: give env:NAME or file:/PATH, which hold it'
    )


def test_options_are_shown_without_secrets() -> None:
    shown = redact(r'{ secret = "a\"b", most = 3, api_token = "c", key = "camera", password = "env:PASSWORD" }')
    assert shown == '{ secret = "***", most = 3, api_token = "***", key = "camera", password = "env:PASSWORD" }'


def test_the_form_of_an_address_shows_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    assert without("https://u:env:HOOK@h/p?x=1&token=file:/run/a&y=2") == "https://u:x@h/p?x=1&token=x&y=2"
    assert without("https://u:file:/run/a@h:8443/p") == "https://u:x@h:8443/p"
    assert without("https://u:secret@h/p") == "https://u:secret@h/p"
