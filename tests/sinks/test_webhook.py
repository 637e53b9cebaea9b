"""The webhook sink of `fer-stream deliver`, with a real receiver in a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from journals import event
from standardwebhooks.webhooks import Webhook as Verifier
from webhook_receiver import OTHER, SECRET, Certificates, Receiver

from fer_stream.errors import ConfigError, DeliveryError, FatalError, PluginError, RejectedError, RetryError
from fer_stream.events.cloudevents import encode, event_id
from fer_stream.journal.contents import gap
from fer_stream.plugins import Delivery
from fer_stream.settings.tree import DeliverSettings
from fer_stream.sinks.webhook import messages, open_sink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_stream.sinks.webhook.sink import Webhook
    from fer_stream.types import Event

QUICK = 1.0
"""Seconds for an answer that does not come."""


def as_delivery(one: Event) -> Delivery:
    return Delivery(event_id(one), one, encode(one))


def resets(*frames: int) -> list[Delivery]:
    return [as_delivery(event("camera.reset", "door", frame)) for frame in frames]


def ids(deliveries: list[Delivery]) -> list[str]:
    return [one.id for one in deliveries]


def opened(address: str, **options: Any) -> Webhook:
    return open_sink(address, DeliverSettings(sink="webhook:x", options=options))


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path).start()
    yield receiver
    receiver.kill()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


def without_dates(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "time" and value is not None}


# What is sent


@pytest.mark.parametrize("mode", ["batched", "structured", "binary"])
def test_every_mode_is_read_by_the_cloudevents_package(mode: str, receiver: Receiver, secrets: Path) -> None:
    receiver.order(secret=SECRET)
    batch = [*resets(1, 2), as_delivery(event("emotion.started", label='à "100 %"\t')), as_delivery(gap(1, 2, "test"))]
    sink = opened(receiver.address, mode=mode, secret=f"file:{secrets}")
    sink.write(batch)
    sink.close()
    sink.close()
    got = [one for request in receiver.requests() for one in request["events"]]
    for one, delivery in zip(got, batch, strict=True):
        expected = without_dates(json.loads(delivery.text))
        texts = {name: str(value) for name, value in expected.items() if name != "data" and mode == "binary"}
        assert without_dates(one) == expected | texts
        moment = datetime.fromisoformat(json.loads(delivery.text)["time"])
        assert datetime.fromisoformat(one["time"]) == moment
    kinds = {
        "batched": ["application/cloudevents-batch+json; charset=utf-8"],
        "structured": ["application/cloudevents+json; charset=utf-8"] * 4,
        "binary": ["application/json"] * 4,
    }
    assert [request["content-type"] for request in receiver.requests()] == kinds[mode]
    if mode != "batched":
        assert [request["webhook-id"] for request in receiver.requests()] == ids(batch)
    assert len({request["from"] for request in receiver.requests()}) == 1  # the connection is used again


def test_the_attributes_in_headers_are_encoded_as_the_binding_says() -> None:
    attributes = {"id": "1", "subject": 'a"b% é\r\nX: y', "flag": True, "frame": 3, "none": None, "data": {"é": 1}}
    one = resets(1)[0]._replace(text=json.dumps(attributes))
    message = messages.make("binary", [one])
    assert message.headers == {
        "Content-Type": "application/json",
        "ce-id": "1",
        "ce-subject": "a%22b%25%20%C3%A9%0D%0AX:%20y",
        "ce-flag": "true",
        "ce-frame": "3",
    }
    assert message.body == '{"é":1}'.encode()


def test_the_same_batch_has_the_same_id_and_others_have_others(receiver: Receiver) -> None:
    sink = opened(receiver.address)
    receiver.order(status=503)
    for _ in range(2):
        with pytest.raises(RetryError):
            sink.write(resets(1, 2))
    receiver.order()
    for batch in (resets(1, 2), resets(1), resets(2, 1), resets(1, 2, 3)):
        sink.write(batch)
    sink.close()
    found = [request["webhook-id"] for request in receiver.requests()]
    assert len(set(found[:3])) == 1
    assert len(set(found)) == 4
    assert found[3] == resets(1)[0].id


def test_secrets_are_rotated_without_a_restart(receiver: Receiver, secrets: Path) -> None:
    sink = opened(receiver.address, secret=f"file:{secrets}")
    receiver.order(secret=SECRET)
    sink.write(resets(1))
    secrets.write_text(f"{OTHER}\n{SECRET}\n")
    sink.write(resets(2))
    receiver.order(secret=OTHER)
    sink.write(resets(3))
    secrets.write_text(OTHER)
    sink.write(resets(4))
    receiver.order(secret=SECRET)
    with pytest.raises(FatalError, match="answers 401 Unauthorized: check the token, the password or the secret"):
        sink.write(resets(5))
    sink.close()
    assert [request["webhook-signature"].count("v1,") for request in receiver.requests()] == [1, 2, 2, 1, 1]
    assert receiver.taken() == ids(resets(1, 2, 3, 4))


def test_a_signature_is_that_of_the_reference(secrets: Path) -> None:
    message = messages.make("batched", [as_delivery(event("emotion.started", "é"))])
    now = datetime.now(UTC).replace(microsecond=0)
    headers = messages.signature(message, messages.keys(f"{SECRET} {OTHER}"), int(now.timestamp()))
    made = [Verifier(one).sign(message.id, now, message.body.decode()) for one in (SECRET, OTHER)]
    assert headers["webhook-signature"] == " ".join(made)
    assert messages.signature(message, [], 1) == {"webhook-id": message.id, "webhook-timestamp": "1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secret-in-clear-which-is-none", "a secret is whsec_ and at least 24 bytes in base64"),
        ("whsec_c2hvcnQ=", "at least 24 bytes"),
        (" \t", "holds cannot be used: it is blank"),
        ("whsec_" + "!" * 40, "in base64"),
    ],
)
def test_a_secret_of_another_kind_is_for_the_operator(text: str, said: str, receiver: Receiver, secrets: Path) -> None:
    secrets.write_text(text)
    sink = opened(receiver.address, secret=f"file:{secrets}")
    with pytest.raises(FatalError, match=said) as caught:
        sink.write(resets(1))
    assert not text.strip() or text not in str(caught.value)
    secrets.unlink()
    with pytest.raises(RetryError, match="secret cannot be read: No such file"):
        sink.write(resets(1))
    sink.close()
    assert not receiver.requests()


def test_tokens_and_passwords(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "abc.def")
    monkeypatch.setenv("HOOK_PASSWORD", "p@ss:wörd")
    sinks = [
        opened(receiver.address, token="env:HOOK_TOKEN"),
        opened(receiver.address.replace("://", "://fer:env:HOOK_PASSWORD@") + "?token=env:HOOK_TOKEN&x=%20"),
        opened(receiver.address.removesuffix("/hook")),
        opened(receiver.address.replace("://", "://fer@")),
    ]
    for sink in sinks:
        sink.write(resets(1))
        sink.close()
    found = [(request["path"], request["authorization"]) for request in receiver.requests()]
    basic = "Basic ZmVyOnBAc3M6d8O2cmQ="
    assert found == [
        ("/hook", "Bearer abc.def"),
        ("/hook?token=abc.def&x=%20", basic),
        ("/", None),
        ("/hook", "Basic ZmVyOg=="),
    ]
    assert all(request["user-agent"].startswith("fer-stream/") for request in receiver.requests())
    monkeypatch.setenv("HOOK_TOKEN", "two\nlines")
    with pytest.raises(FatalError, match="the token that env:HOOK_TOKEN holds has characters") as caught:
        sinks[0].write(resets(1))
    assert "two" not in str(caught.value)
    monkeypatch.delenv("HOOK_TOKEN")
    with pytest.raises(FatalError, match="HOOK_TOKEN, which is not set"):
        sinks[0].write(resets(1))


# What is answered


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_success_counts(status: int, receiver: Receiver) -> None:
    receiver.order(status=status, headers={"Content-Type": "text/html"}, body="<html>ok</html>")
    sink = opened(receiver.address)
    sink.write(resets(1))
    sink.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *(
            (status, RetryError)
            for status in (302, 303, 307, 404, 408, 421, 423, 425, 429, 500, 501, 502, 503, 504, 599)
        ),
        *((status, FatalError) for status in (301, 308, 401, 402, 403, 405, 407, 410, 415, 426)),
        *((status, RejectedError) for status in (400, 406, 409, 411, 412, 413, 414, 422, 424, 428, 431, 451, 499)),
    ],
)
def test_what_a_status_means(status: int, kind: type[DeliveryError], receiver: Receiver) -> None:
    receiver.order(status=status)
    sink = opened(receiver.address)
    with pytest.raises(
        DeliveryError, match=rf"the receiver http://127\.0\.0\.1:{receiver.port} answers {status}"
    ) as caught:
        sink.write(resets(1))
    sink.close()
    assert type(caught.value) is kind
    assert len(receiver.requests()) == 1


def test_only_the_guilty_are_refused(receiver: Receiver) -> None:
    batch = resets(*range(1, 33))
    guilty = [batch[6], batch[7], batch[20], batch[31]]
    receiver.order(
        refuse=ids(guilty), status=422, headers={"Content-Type": "application/json"}, body='{"detail": "ugly"}'
    )
    sink = opened(receiver.address)
    with pytest.raises(RejectedError) as caught:
        sink.write(batch)
    reason = f"the receiver http://127.0.0.1:{receiver.port} answers 422 Unprocessable Entity (ugly)"
    assert caught.value.reasons == dict.fromkeys(ids(guilty), reason)
    innocent = [one for one in batch if one not in guilty]
    before = len(receiver.requests())
    sink.write(innocent)  # as the courier does; nothing is sent twice
    assert len(receiver.requests()) == before
    assert receiver.taken() == ids(innocent)
    sink.write(innocent)
    assert len(receiver.requests()) == before + 1
    sink.close()


def test_a_batch_that_is_too_large_comes_in_parts(receiver: Receiver) -> None:
    batch = resets(*range(1, 101))
    receiver.order(most=5000)
    sink = opened(receiver.address)
    sink.write(batch)
    sink.close()
    assert receiver.taken() == ids(batch)


@pytest.mark.parametrize("mode", ["batched", "structured"])
def test_what_was_taken_beside_refused_events_is_not_repeated(mode: str, receiver: Receiver) -> None:
    batch = resets(*range(1, 9))
    sink = opened(receiver.address, mode=mode, timeout=QUICK)
    receiver.order(refuse=[batch[2].id])
    with pytest.raises(RejectedError):
        sink.write(batch)
    receiver.order(status=503)
    rest = [*batch[:2], *batch[3:]]
    sink.write(rest)  # all of it is there already
    receiver.order()
    sink.close()
    assert receiver.taken() == ids(rest)


def test_what_was_found_guilty_before_a_failure_is_refused(receiver: Receiver) -> None:
    batch = resets(1, 2, 3)
    sink = opened(receiver.address, mode="structured")
    receiver.order(refuse=[batch[0].id], do="hang_up")
    with pytest.raises(RejectedError) as caught:
        sink.write(batch)
    assert list(caught.value.reasons) == [batch[0].id]
    with pytest.raises(RetryError, match="closes the connection without an answer"):
        sink.write(batch[1:])
    receiver.order()
    sink.write(batch[1:])
    sink.close()
    assert receiver.taken() == ids(batch[1:])


@pytest.mark.parametrize("status", [403, 413, 429, 503])
def test_a_receiver_says_when_it_wants_the_events(status: int, receiver: Receiver) -> None:
    sink = opened(receiver.address)
    receiver.order(status=status, headers={"Retry-After": "120"})
    with pytest.raises(RetryError, match=r"wants the events in 120 s") as caught:
        sink.write(resets(1))
    assert caught.value.after == 120
    later = datetime.now(UTC) + timedelta(hours=1)
    receiver.order(status=status, headers={"Retry-After": format_datetime(later, usegmt=True)})
    with pytest.raises(RetryError) as caught:
        sink.write(resets(1))
    assert 3000 < caught.value.after <= 3600
    sink.close()


@pytest.mark.parametrize("value", ["soon", "-1", "", "9" * 30, "Fri, 31 Feb 2026 99:00:00 GMT"])
def test_an_odd_time_to_wait_does_no_harm(value: str, receiver: Receiver) -> None:
    receiver.order(status=503, headers={"Retry-After": value})
    sink = opened(receiver.address)
    with pytest.raises(RetryError, match="answers 503"):
        sink.write(resets(1))
    sink.close()


def test_a_redirect_is_not_followed(receiver: Receiver, tmp_path: Path) -> None:
    receiver.order(status=308, headers={"Location": "http://127.0.0.1:PORT/other?token=abc"})
    sink = opened(receiver.address)
    said = rf"308 Permanent Redirect: it redirects to http://127\.0\.0\.1:{receiver.port}/other\?token=\*\*\*; give the"
    with pytest.raises(FatalError, match=said):
        sink.write(resets(1))
    sink.close()
    assert [request["path"] for request in receiver.requests()] == ["/hook"]


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("text/html", "<html>nginx</html>", "answers 500 Internal Server Error"),
        ("text/plain; charset=utf-8", "full\n\x1b[31m up", r"Error \(full \[31m up\)"),
        ("application/problem+json", '{"title": "a", "detail": "no room"}', r"Error \(no room\)"),
        ("application/json", '{"error": {"code": 7}}', r'Error \(\{"error": \{"code": 7\}\}\)'),
        ("application/json", "[" * 16_000, "answers 500 Internal Server Error"),
        ("application/json", "no json", "answers 500 Internal Server Error"),
        ("text/plain", "x" * 5000, rf"Error \({'x' * 200}\)"),
    ],
)
def test_an_explanation_is_quoted_if_it_can_be_read(kind: str, body: str, said: str, receiver: Receiver) -> None:
    receiver.order(status=500, headers={"Content-Type": kind}, body=body)
    sink = opened(receiver.address)
    with pytest.raises(RetryError, match=f"{said}$"):
        sink.write(resets(1))
    sink.close()


def test_a_receiver_that_repeats_the_secrets(
    receiver: Receiver, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "abc.def")
    echo = {"Content-Type": "text/plain"}
    receiver.order(status=500, headers=echo, body=f"you sent Bearer abc.def and {SECRET}")
    sink = opened(receiver.address, token="env:HOOK_TOKEN", secret=f"file:{secrets}")
    with pytest.raises(RetryError, match=r"you sent Bearer \*\*\* and \*\*\*\)$"):
        sink.write(resets(1))
    receiver.order(status=500, headers=echo, body="x" * 190 + SECRET)
    with pytest.raises(RetryError, match=r"x\*\*\*\)$"):
        sink.write(resets(1))
    sink.close()


# What goes wrong on the way


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("hang", "does not answer within 1 s"),
        ("dribble", "does not answer within 1 s"),
        ("dribble_body", r"answers 500 Internal Server Error$"),
        ("hang_up", "closes the connection without an answer"),
        ("break_off", "breaks off its answer"),
        ("endless_head", "does not answer in HTTP: check the address"),
        ("speak_otherwise", "does not answer in HTTP: check the address"),
    ],
)
def test_a_receiver_that_does_not_answer(do: str, said: str, receiver: Receiver) -> None:
    sink = opened(receiver.address, timeout=QUICK)
    receiver.order(do=do)
    with pytest.raises(RetryError, match=said):
        sink.write(resets(1))
    receiver.order()
    sink.write(resets(1))
    sink.close()
    assert receiver.taken() == ids(resets(1))


@pytest.mark.parametrize("do", ["endless", "cut"])
def test_an_answer_counts_whatever_follows_its_status(do: str, receiver: Receiver) -> None:
    sink = opened(receiver.address, timeout=QUICK)
    receiver.order(do=do)
    sink.write(resets(1))
    receiver.order()
    sink.write(resets(2))
    sink.close()
    assert receiver.taken() == ids(resets(2))


def test_a_receiver_that_is_down_and_comes_back(receiver: Receiver) -> None:
    sink = opened(receiver.address, timeout=QUICK)
    sink.write(resets(1))
    receiver.kill()
    with pytest.raises(RetryError, match="cannot be reached: Connection refused"):
        sink.write(resets(2))
    receiver.start()
    sink.write(resets(2))
    receiver.signal(signal.SIGSTOP)
    with pytest.raises(RetryError, match="does not answer within 1 s"):
        sink.write(resets(3))
    receiver.signal(signal.SIGCONT)
    sink.write(resets(4))
    receiver.kill()
    receiver.start()  # the idle connection is gone, and nobody notices
    sink.write(resets(5))
    sink.close()
    assert set(ids(resets(1, 2, 4, 5))) <= set(receiver.taken())


def test_a_connection_that_is_closed_when_it_is_used_again() -> None:
    """The receiver closes an idle connection in the moment in which the next request is on its way."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = opened(f"http://127.0.0.1:{server.getsockname()[1]}/")
        got: list[bytes] = []

        def serve() -> None:
            for answers in (1, 1):
                connection = server.accept()[0]
                for _ in range(answers):
                    got.append(_request(connection))
                    connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                if len(got) == 1:
                    _request(connection)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        sink.write(resets(1))
        sink.write(resets(2))
        thread.join()
        sink.close()
    assert [ids(resets(1))[0].encode() in got[0], ids(resets(2))[0].encode() in got[1]] == [True, True]


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"]" not in data:
        data += connection.recv(65_536)
    return data


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_receiver_that_refuses_a_batch_before_it_has_read_it(encrypted: bool, certificates: Certificates) -> None:
    large = [one._replace(text=one.text + " " * 60_000) for one in resets(*range(1, 20))]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.sign("127.0.0.1"))

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:  # the test is at its end
                    return
                with context.wrap_socket(connection, server_side=True) if encrypted else connection as stream:
                    stream.recv(10)
                    stream.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        sink = opened(f"{'https' if encrypted else 'http'}://127.0.0.1:{port}/", ca=str(certificates.ca))
        answer: FatalError | RetryError = RetryError("nothing was sent yet")
        # Closing a connection with unread data may lose the answer (RFC 9112, 9.6). Then the batch is sent again.
        while isinstance(answer, RetryError):
            with pytest.raises((FatalError, RetryError)) as raised:
                sink.write(large)
            answer = raised.value
        assert "answers 401" in str(answer)
        sink.close()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_receiver_that_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.sinks.webhook.client.SEND", QUICK)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sink = opened(f"http://127.0.0.1:{server.getsockname()[1]}/", most=1000)
        large = [one._replace(text=one.text + " " * 60_000) for one in resets(*range(1, 200))]
        with pytest.raises(RetryError, match="does not take the request within 1 s"):
            sink.write(large)
        sink.close()


def test_a_handshake_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer_stream.sinks.webhook.client.CONNECT", QUICK)
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = opened(f"https://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(RetryError, match="takes no connection within 1 s"):
            sink.write(resets(1))
        sink.close()


def test_a_host_without_an_address() -> None:
    sink = opened("https://no-such-host.invalid/hook")
    with pytest.raises(RetryError, match=r"the host of the receiver https://no-such-host\.invalid:443 has no address"):
        sink.write(resets(1))


def test_proxies_in_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    sink = opened(receiver.address)
    sink.write(resets(1))
    sink.close()
    assert receiver.taken() == ids(resets(1))


# Certificates


def test_https(tmp_path: Path, certificates: Certificates) -> None:
    receiver = Receiver(tmp_path, certificates.sign("localhost"), host="localhost").start()
    sink = opened(receiver.address, ca=str(certificates.ca))
    for number in range(1, 4):
        sink.write(resets(number))
    sink.close()
    try:
        assert receiver.taken() == ids(resets(1, 2, 3))
        assert len({request["from"] for request in receiver.requests()}) == 1
        with pytest.raises(
            RetryError, match=r"localhost:\d+ is not valid: unable to get local issuer.*; it has to be renewed, or"
        ):
            opened(receiver.address).write(resets(1))
        wrong_scheme = opened(receiver.address.replace("https", "http"), timeout=QUICK)
        with pytest.raises(RetryError, match=r"closes the connection|does not answer"):
            wrong_scheme.write(resets(1))
        assert receiver.taken() == ids(resets(1, 2, 3))
    finally:
        receiver.kill()


@pytest.mark.parametrize(
    ("name", "days", "said"),
    [("example.org", 2, "Hostname mismatch"), ("localhost", -1, "certificate has expired")],
)
def test_a_wrong_certificate(name: str, days: int, said: str, tmp_path: Path, certificates: Certificates) -> None:
    receiver = Receiver(tmp_path, certificates.sign(name, days), host="localhost").start()
    sink = opened(receiver.address, ca=str(certificates.ca))
    try:
        with pytest.raises(RetryError, match=f"is not valid: {said}"):
            sink.write(resets(1))
        assert not receiver.requests()
    finally:
        receiver.kill()


def test_a_receiver_that_does_not_encrypt(receiver: Receiver) -> None:
    with pytest.raises(RetryError, match="does not speak TLS: check the port, or give http://"):
        opened(receiver.address.replace("http", "https")).write(resets(1))


def test_a_certificate_of_this_process(tmp_path: Path, certificates: Certificates) -> None:
    receiver = Receiver(tmp_path, certificates.sign("localhost"), certificates.ca, host="localhost").start()
    mine = certificates.sign("fer")
    stranger = Certificates(_made(tmp_path / "stranger")).sign("fer")
    ca = str(certificates.ca)
    try:
        sink = opened(receiver.address, ca=ca, certificate=str(mine))
        sink.write(resets(1))
        sink.close()
        for options in ({}, {"certificate": str(stranger)}):
            with pytest.raises(FatalError, match=r"refuses the certificate of this process .*: check the options cert"):
                opened(receiver.address, ca=ca, **options).write(resets(2))
        assert receiver.taken() == ids(resets(1))
    finally:
        receiver.kill()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_files_that_hold_no_certificate(tmp_path: Path, certificates: Certificates) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for options, said in [
        ({"ca": str(tmp_path / "missing.pem")}, r"the option ca: .*missing\.pem cannot be used: No such file"),
        ({"ca": str(empty)}, r"the option ca: .*empty\.pem cannot be used"),
        ({"certificate": str(empty)}, "the options certificate and key: .* cannot be used"),
        ({"certificate": str(certificates.ca)}, "the key needs to be there, without a password"),
    ]:
        with pytest.raises(FatalError, match=said):
            opened("https://127.0.0.1:9/", **options).write(resets(1))


# Before it starts


@pytest.mark.parametrize(
    "address",
    ["", "//h/x", "ftp://h/x", "http://", "https:///x", "http://h:0/", "http://h:99999/", "http://h/#x", "host/path"],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a receiver"):
        open_sink(address, DeliverSettings(sink="webhook:x"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "xml"}, "option mode"),
        ({"most": 0}, "option most"),
        ({"timeout": 0}, "option timeout"),
        ({"secret": SECRET}, r"option secret = \"\*\*\*\": a secret does not stand in the settings"),
        ({"key": "x.pem"}, "option key: set the option certificate, too"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_invalid_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        opened("http://127.0.0.1/", **options)
    assert SECRET not in str(caught.value)


def test_without_urllib3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(PluginError, match=r"pip install 'fer-stream\[webhook\]'"):
        opened("http://127.0.0.1/")


def test_a_password_and_a_token_are_too_much() -> None:
    with pytest.raises(ConfigError, match=r"https://fer:\*\*\*@h/ has a user, and the option token is set"):
        opened("https://fer:env:X@h/", token="env:T")


# check


@pytest.mark.parametrize(
    ("order", "kind", "said"),
    [
        ({}, None, ""),
        ({"status": 405}, None, ""),
        ({"status": 501}, None, ""),
        ({"status": 415}, None, ""),
        ({"status": 400}, None, ""),
        ({"status": 404}, RetryError, "answers 404 Not Found to OPTIONS: check the address if it does so to POST, too"),
        ({"status": 401}, FatalError, "answers 401"),
        ({"status": 410}, FatalError, "answers 410"),
        ({"status": 503}, RetryError, "answers 503"),
        ({"status": 301}, FatalError, "redirects"),
        ({"do": "hang_up"}, RetryError, "closes the connection"),
    ],
)
def test_a_check_sends_no_event(
    order: dict[str, Any], kind: type[DeliveryError] | None, said: str, receiver: Receiver
) -> None:
    receiver.order(**order)
    sink = opened(receiver.address)
    if kind is None:
        sink.check()
    else:
        with pytest.raises(kind, match=said):
            sink.check()
    sink.close()
    assert [(request["method"], request["events"]) for request in receiver.requests()] == [("OPTIONS", [])]


def test_a_check_looks_for_the_secrets(receiver: Receiver, tmp_path: Path) -> None:
    with pytest.raises(RetryError, match="missing cannot be read"):
        opened(receiver.address, secret=f"file:{tmp_path}/missing").check()
    assert not receiver.requests()
