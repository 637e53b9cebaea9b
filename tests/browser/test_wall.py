"""The example page of the HTTP API, behind a real nginx as in the how-to, in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from documents import ROOT, blocks
from journals import everything
from processes import Cli, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page
    from processes import Process

EXAMPLE = ROOT / "docs/examples/wall.html"
(CONF,) = (block.text for block in blocks(ROOT / "docs/how-to/http-api.md") if block.title == "wall.conf")


class Site:
    """A service, each of whose roles is a process, and nginx before its page."""

    def __init__(self, folder: Path, short: Path, model: Path, clip: Path) -> None:
        self.cli = Cli(folder, model)
        self.folder, self.address, self.clip = folder, f"ipc://{short}", clip
        self.port, self.proxy_port = free_port(), free_port()
        self.aggregator = self.start_aggregator()
        self.cli.start("worker", "--connect", self.address)
        self.cli.start("capture", clip, "--camera", "film", "--loop", "--connect", self.address)
        self.live = self.start_live()
        self.nginx = self.start_nginx()

    def start_aggregator(self) -> Process:
        return self.cli.start("aggregator", "--bind", self.address, "--journal", "events.db")

    def start_live(self) -> Process:
        process = self.cli.start("live", "--page", f"127.0.0.1:{self.port}", "--connect", self.address)
        process.until(lambda: "the live page is at" in process.out, "the page")
        return process

    def start_nginx(self) -> subprocess.Popen[bytes]:
        folder = self.folder / "nginx"
        folder.mkdir(exist_ok=True)
        shutil.copy(EXAMPLE, folder)
        text = CONF.replace("8443", str(self.proxy_port)).replace("8090", str(self.port))
        assert text.count(str(self.port)) == text.count(str(self.proxy_port)) == 1
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {kind};" for kind in kinds)
        types = "types { text/html html; }"
        user = "user root; " if os.geteuid() == 0 else ""  # the page's folder is open to this user alone
        main = f"{user}daemon off; pid nginx.pid; error_log stderr; worker_processes 1; events {{}} "
        main += "http { access_log off;"
        (folder / "nginx.conf").write_text(f"{main} {types} {temporary} {text} }}")
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        command = [program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def close(self) -> None:
        self.nginx.terminate()
        self.nginx.wait()
        self.cli.close()


@pytest.fixture
def site(tmp_path: Path, short_folder: Path, tiny_model: Path, clip: Path) -> Iterator[Site]:
    made = Site(tmp_path, short_folder, tiny_model, clip)
    yield made
    made.close()


def shown(page: Page) -> list[str]:
    """Return the ids of the events on the page, the earliest first."""
    ids: list[str] = page.eval_on_selector_all("#events li", "items => items.map((item) => item.id).reverse()")
    return ids


def test_the_page_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_the_page_shows_every_event_across_restarts(site: Site, page: Callable[..., Page]) -> None:
    opened = page(f"http://127.0.0.1:{site.proxy_port}/fer/wall.html")

    def more(than: int) -> None:
        opened.wait_for_function("count => document.querySelectorAll('#events li').length > count", arg=than)

    opened.get_by_text(re.compile("film: online, faces in view: [0-9]")).wait_for()
    more(2)
    site.aggregator.kill()
    site.aggregator = site.start_aggregator()
    more(len(shown(opened)) + 2)
    with opened.expect_response(lambda answer: answer.status == 502 and "stream" in answer.url):
        site.live.kill()  # what nginx answers then ends an EventSource for good
    site.live = site.start_live()
    more(len(shown(opened)) + 2)
    site.nginx.kill()
    site.nginx.wait()
    site.nginx = site.start_nginx()
    more(len(shown(opened)) + 2)
    found = shown(opened)
    ids = [json.loads(text)["id"] for text in everything(site.folder / "events.db")]
    first = ids.index(found[0])
    assert found == ids[first : first + len(found)], "none is missing, none comes twice, all are in order"
