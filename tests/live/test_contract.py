"""The OpenAPI document: valid, complete, and what the server does, as Schemathesis finds by thousands of requests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from processes import wait_for
from served import Service, get

from fer_stream.live.api import contract
from fer_stream.live.api.routes import Api

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "0123456789abcdef-token"
ANNOTATOR = "0123456789abcdef-anna"
"""Its sender may do all that the API offers."""

CONFIGURATION = """
# A parameter that follows its schema may still be refused: 31 February, a period that ends before it begins (400),
# a cursor of a cell (409). Any bytes are a body, but few are a picture (422).
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 409, 415, 422]
# The picture's length and kind are checked before anything else.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 409, 411, 413, 415, 422]
"""


def test_every_operation_is_served_and_described() -> None:
    document = contract.openapi()
    described = {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert described == {(contract.PREFIX + each.path, each.method.lower()) for each in contract.OPERATIONS}
    assert all(callable(getattr(Api, each.name)) for each in contract.OPERATIONS)
    text = json.dumps(document)
    references = {part.partition('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert references <= document["components"]["schemas"].keys()
    assert "$defs" not in text


def test_schemathesis_finds_nothing(service: Service, printed: Callable[[], str], tmp_path: Path) -> None:
    token = tmp_path / "live.token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    service.pipeline()
    own = tmp_path / "anna.token"
    own.write_text(ANNOTATOR)
    own.chmod(0o600)
    url, _ = service.live(printed, token_file=token, annotators={"anna": own})
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    wait_for(lambda: b'"label"' in get(url, f"{contract.PREFIX}/intervals", **bearer).body, "an interval")  # type: ignore[attr-defined]
    (tmp_path / "openapi.json").write_bytes(get(url, f"{contract.PREFIX}/openapi.json", **bearer).body)  # type: ignore[attr-defined]
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", "openapi.json", "--url", url.rstrip("/")]
    command += ["--checks", "all", "--max-examples", "15", "--seed", "1", "--workers", "1"]
    command += ["--header", f"Authorization: Bearer {ANNOTATOR}", "--suppress-health-check", "all"]
    command += ["--exclude-operation-id", "stream"]  # an answer without an end
    command += ["--generation-database", "none"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
