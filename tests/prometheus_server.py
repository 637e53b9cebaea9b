"""A real Prometheus server that scrapes targets, evaluates rules and answers queries."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from processes import free_port

if TYPE_CHECKING:
    from pathlib import Path


class Prometheus:
    """A server that scrapes ``targets`` (port by job name) once a second, and evaluates ``rules``."""

    def __init__(self, folder: Path, targets: dict[str, int], rules: Path | None = None) -> None:
        jobs = [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in targets.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "scrape_configs": jobs,
            "rule_files": [str(rules)] if rules else [],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self._port = free_port()
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an API response, or ``None`` while the server starts.

        Raises:
            AssertionError: the server refuses the request, such as a query that does not parse.
        """
        address = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503:
                    raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None
        except OSError:
            pass
        return None

    def query(self, text: str) -> dict[tuple[str, ...], float]:
        """Return the values of a query, by their label values in the order of the label names."""
        data: dict[str, Any] = self.get("query", query=text) or {"result": []}
        return {
            tuple(value for _, value in sorted(row["metric"].items())): float(row["value"][1]) for row in data["result"]
        }

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
