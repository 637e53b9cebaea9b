"""A real PostgreSQL for tests, run by an unprivileged user: it refuses root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg
from processes import free_port

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))

NOBODY = 65534

UNDER = () if os.getuid() else ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
"""A command that runs another one without the rights of root."""


class PostgresServer:
    """A server, its databases, and ``psql``. What it stores survives `kill` and `start`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.own(self.folder)
        self.port = free_port()
        self._run("initdb", "-D", self.data, "-U", "admin", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")
        self.configure(fsync="off", max_connections=20, log_min_messages="log")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def own(self, path: Path) -> None:
        """Give a file or folder to the user who runs the server."""
        if UNDER:
            os.chown(path, NOBODY, NOBODY)

    def configure(self, **values: object) -> None:
        """Set parameters, which hold from the next start on."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in values.items())

    def admit(self, *lines: str) -> None:
        """Replace pg_hba.conf, except that the administrator may always come through the socket."""
        (self.data / "pg_hba.conf").write_text("\n".join(["local all admin trust", *lines]) + "\n")

    def start(self, wait: bool = True) -> PostgresServer:
        options = f"-p {self.port} -k {self.folder} -h 127.0.0.1"
        self._run("pg_ctl", "-D", self.data, "-o", options, "-l", self.folder / "log", "-w" if wait else "-W", "start")
        return self

    def reload(self) -> None:
        self._run("pg_ctl", "-D", self.data, "reload")

    def kill(self) -> None:
        """End it as a crash would. A second call does nothing."""
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def address(self, database: str = "postgres", user: str = "admin", **parameters: object) -> str:
        """Return an address as the sink takes it; ``host`` stands for a path to a socket."""
        host = "" if "host" in parameters else f"127.0.0.1:{self.port}"
        given = {"port": self.port, **parameters} if "host" in parameters else parameters
        more = "&".join(f"{name}={value}" for name, value in given.items())
        return f"postgres://{user}@{host}/{database}{'?' if more else ''}{more}"

    def psql(self, statement: str, database: str = "postgres", user: str = "admin") -> list[list[str]]:
        """Return the rows that ``psql`` prints; it reads the statement from standard input."""
        command = ["psql", "-X", "-A", "-t", "-q", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder)]
        command += ["-p", str(self.port), "-U", user, "-d", database, "-f", "-"]
        done = subprocess.run(command, input=statement, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def session(self, database: str = "postgres", **options: Any) -> psycopg.Connection:
        """Return a connection of an administrator, which begins transactions by itself."""
        return psycopg.connect(host=str(self.folder), port=self.port, user="admin", dbname=database, **options)

    def _run(self, program: str, *arguments: object) -> None:
        command = [*UNDER, str(BIN / program), *map(str, arguments)]
        # Files, not pipes: the server inherits them, and would keep a pipe open.
        with (self.folder / "commands.log").open("ab") as log:
            done = subprocess.run(command, cwd=self.folder, stdout=log, stderr=log, check=False)
        assert done.returncode == 0, (self.folder / "commands.log").read_text()
