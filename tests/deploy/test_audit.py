"""The check for known vulnerabilities reports what it finds, and reports when the check is impossible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deploy_files import DEPLOY
from processes import free_port

FOUND = {"id": "PYSEC-1", "summary": "it may be read by others", "affected": [
    {"package": {"name": "numpy", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "99"}]}]}
]}  # fmt: skip


class Advisories(BaseHTTPRequestHandler):
    """A server with OSV's interface that has one advisory, for numpy."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"vulns": [FOUND]} if asked["package"]["name"] == "numpy" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def audit(port: int, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIP_AUDIT": str(Path(sys.executable).parent / "pip-audit"), **environment}
    command = [DEPLOY / "audit", "--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/v1/query"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_known_vulnerability_is_reported() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = audit(server.server_address[1], UNREACHABLE="0")
        server.shutdown()
    assert done.returncode == 1
    assert "PYSEC-1" in done.stdout
    assert "Found 1 known vulnerability in 1 package" in done.stdout


def test_an_unreachable_advisory_service_is_reported_in_a_sentence_and_fails() -> None:
    done = audit(free_port())
    assert (done.returncode, done.stdout) == (3, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("audit: the locked packages cannot be checked for known vulnerabilities, because the")


def test_other_errors_fail_even_if_unreachable_is_allowed() -> None:
    done = audit(free_port(), PIP_AUDIT="no-such-pip-audit", UNREACHABLE="0")
    assert done.returncode == 127
    assert "no-such-pip-audit" in done.stderr
