"""Real MQTT brokers for tests: mosquitto, and `mosquitto_sub` as a reader that shares no code with the sink."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from contextlib import suppress
from signal import Signals
from typing import TYPE_CHECKING, Any

from processes import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "mosquitto"


class Mosquitto:
    """One mosquitto. What it retains is lost with `kill`, unless the configuration says ``persistence true``."""

    def __init__(self, folder: Path, *configuration: str, tls: Certificates | None = None) -> None:
        self.port = free_port()
        self.folder = folder / f"mosquitto-{self.port}"
        self.folder.mkdir()
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[Reader] = []
        self.configure(*configuration)

    def configure(self, *configuration: str) -> None:
        """Write the settings; they hold from the next `start` on."""
        lines = [f"listener {self.port} 127.0.0.1", f"persistence_location {self.folder}/"]
        if not any(line.startswith("allow_anonymous") for line in configuration):
            lines.append("allow_anonymous true")
        if self._tls is not None:
            lines += [f"certfile {self._tls.certificate}", f"keyfile {self._tls.key}", f"cafile {self._tls.ca}"]
        if os.getuid() == 0:
            lines.append("user root")  # it would change to a user that cannot read the test's files
        (self.folder / "m.conf").write_text("\n".join([*lines, *configuration]) + "\n")

    def passwords(self, **users: str) -> str:
        """Write a file with users, and return the settings that use it."""
        path = self.folder / "passwords"
        path.touch(0o600)
        for user, password in users.items():
            subprocess.run(["mosquitto_passwd", "-b", path, user, password], check=True, capture_output=True)
        return f"allow_anonymous false\npassword_file {path}"

    def access(self, *rules: str) -> str:
        """Write an access list, and return the setting that uses it."""
        path = self.folder / "acl"
        path.write_text("\n".join(rules) + "\n")
        path.chmod(0o600)
        return f"acl_file {path}"

    @property
    def address(self) -> str:
        return f"mqtt{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def start(self) -> Mosquitto:
        with (self.folder / "log").open("ab") as log:
            command = [PROGRAM, "-c", str(self.folder / "m.conf")]
            self._process = process = subprocess.Popen(command, stdout=log, stderr=log)

        def listens() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_for(listens, "mosquitto", lambda: process.poll() is None, (self.folder / "log").read_text)
        return self

    def tell(self, number: Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self, number: Signals = Signals.SIGKILL) -> None:
        """End it. A second call does nothing."""
        if self._process is not None:
            self.tell(number)
            self.tell(Signals.SIGCONT)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and its readers."""
        for reader in self._readers:
            reader.close()
        self.kill()

    def read(self, *topics: str, user: tuple[str, str] | None = None) -> Reader:
        """Return a reader of these topics, which has subscribed to them."""
        self._readers.append(Reader(self, topics or ("#",), user))
        return self._readers[-1]

    def retained(self, topic: str = "#") -> dict[str, str]:
        """Return what is retained: the payload of each topic."""
        reader = self.read(topic)
        found = {one["topic"]: one["payload"] for one in reader.until_marked() if one["retain"]}
        reader.close()
        return found

    def publish(self, topic: str, payload: str, *options: str) -> None:
        command = ["mosquitto_pub", "-V", "5", "-p", str(self.port), "-h", "127.0.0.1", "-q", "1", "-t", topic]
        subprocess.run([*command, *(["-m", payload] if payload else ["-n"]), *options], check=True)


class Reader:
    """A `mosquitto_sub` that writes what it receives into a file."""

    def __init__(self, broker: Mosquitto, topics: tuple[str, ...], user: tuple[str, str] | None = None) -> None:
        self._broker = broker
        self._path = broker.folder / f"read-{free_port()}.jsonl"
        self._given = ["-u", user[0], "-P", user[1]] if user else []
        chosen = [part for topic in (*topics, "test/mark") for part in ("-t", topic)]
        command = ["mosquitto_sub", "-V", "5", "-h", "127.0.0.1", "-p", str(broker.port), "-q", "1", "-F", "%j"]
        with self._path.open("wb") as out:
            self._process = subprocess.Popen([*command, *self._given, *chosen], stdout=out)
        self._marks = 0
        self.until_marked()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What it has received so far."""
        whole = [json.loads(line) for line in self._path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [one for one in whole if one["topic"] != "test/mark"]

    def until(self, condition: Callable[[list[dict[str, Any]]], Any], what: str = "messages") -> Any:
        return wait_for(
            lambda: condition(self.messages), what, lambda: self._process.poll() is None, self._path.read_text
        )

    def until_marked(self) -> list[dict[str, Any]]:
        """Return everything that was published before this call."""
        self._marks += 1

        def marked() -> bool:
            self._broker.publish("test/mark", "x", *self._given)
            return self._path.read_text().count('"test/mark"') >= self._marks

        wait_for(marked, "the reader's mark")
        self._marks = self._path.read_text().count('"test/mark"')
        return self.messages

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Certificates:
    """A certificate authority, and a certificate for 127.0.0.1 that also serves as a client's."""

    def __init__(self, folder: Path, name: str = "ca", address: str = "127.0.0.1") -> None:
        self.ca, ca_key = folder / f"{name}.pem", folder / f"{name}.key"
        self.certificate, self.key = folder / f"{name}-one.pem", folder / f"{name}-one.key"
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        new += ["-days", "3"]
        authority = ["-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign"]
        self._run([*new, *authority, "-keyout", ca_key, "-out", self.ca])
        signed = ["-CA", self.ca, "-CAkey", ca_key, "-subj", "/CN=one", "-addext", f"subjectAltName=IP:{address}"]
        signed += ["-addext", "basicConstraints=critical,CA:FALSE"]
        self._run([*new, *signed, "-keyout", self.key, "-out", self.certificate])

    @staticmethod
    def _run(command: list[Any]) -> None:
        subprocess.run(command, check=True, capture_output=True)
