"""The receiver on the page on webhooks works, as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deliveries import Bench
from documents import ROOT, blocks
from processes import free_port
from webhook_receiver import OTHER, SECRET

if TYPE_CHECKING:
    from processes import Cli

PAGE = {block.title: block.text for block in blocks(ROOT / "docs/how-to/deliver-webhook.md") if block.title}


def test_the_receiver_prints_each_event(cli: Cli) -> None:
    bench, folder, port = Bench(cli), cli.folder, free_port()
    events = bench.journal("door", events=20)
    for name in ("receiver.py", "settings.toml"):
        text = PAGE[name].replace("9000", str(port))
        assert text != PAGE[name]
        (folder / name).write_text(text)
    with (folder / "settings.toml").open("a") as settings:
        settings.write('begin = "beginning"\n')
    out = folder / "received"
    with out.open("wb") as file:
        command = [sys.executable, str(folder / "receiver.py")]
        receiver = subprocess.Popen(command, stdout=file, env=os.environ | {"HOOK_SECRET": SECRET})
    try:
        deliver = ("deliver", "--config", "settings.toml", "--journal", "e.db")
        wrong = cli.start(*deliver, HOOK_SECRET=OTHER)
        wrong.until_said("answers 401 Unauthorized: check the token, the password or the secret")
        assert wrong.stop() == 0
        doctor = cli.run("doctor", "--config", "settings.toml", "--journal", "e.db", HOOK_SECRET=SECRET)
        assert re.search("^ok +sink hook: .* is ready$", doctor.out, re.MULTILINE)
        run = cli.start(*deliver, HOOK_SECRET=SECRET)
        lines = [f"{event['time']} {event['source']} {event['type']}" for event in events]
        run.until(lambda: out.read_text().splitlines() == lines, "all events")
        assert run.stop() == 0
    finally:
        receiver.kill()
        receiver.wait()


def test_the_page_names_all_options() -> None:
    from fer_stream.sinks.webhook.sink import WebhookOptions  # noqa: PLC0415

    text = Path(ROOT / "docs/how-to/deliver-webhook.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert set(WebhookOptions.model_fields) <= set(re.findall(r"`(\w+)`", " ".join(rows)))
