"""The page about cameras at run time, followed word by word: each command of it runs, in its order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from documents import ROOT, blocks
from nats_servers import NatsServer
from processes import free_port, wait_for

if TYPE_CHECKING:
    from processes import Cli

PAGE = ROOT / "docs/how-to/cameras.md"


def test_the_page_is_followed_word_by_word(cli: Cli) -> None:
    cli.environment["PATH"] = f"{Path(sys.executable).parent}:{cli.environment['PATH']}"
    (settings,) = (block for block in blocks(PAGE) if block.title == "cameras.toml")
    (cli.folder / "cameras.toml").write_text(settings.text)
    begin, password, add, change, again, *_ = [block.text for block in blocks(PAGE) if block.language == "bash"]
    example, _ = [block.text for block in blocks(PAGE) if block.language == "text"]

    def follow(text: str, typed: str = "") -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", text],
            cwd=cli.folder,
            env=cli.environment,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr
        return done.stdout

    service = cli.start(*begin.split()[1:])
    wait_for(lambda: list(cli.runtime.glob("fer_stream/service-*/about.json")), "the service", log=lambda: service.err)
    follow(password, typed="s3cret\n")
    assert (cli.folder / "door.password").stat().st_mode & 0o777 == 0o600
    assert (cli.folder / "door.password").read_text() == "s3cret\n"

    head, *rows = [line.split() for line in follow(add).splitlines() if "added" not in line]
    assert head == example.splitlines()[0].split()
    assert [row[0] for row in rows] == [row.split()[0] for row in example.splitlines()[1:]] == ["hall", "door", "yard"]
    assert [row[1] for row in rows if row[0] != "door"] == ["online", "online"]
    assert rows[1][1] in ("failing", "starting"), "there is no such camera"
    assert f"file:{cli.folder}/door.password@192.0.2.10" in " ".join(rows[1])

    *told, hall, yard = follow(change).splitlines()
    assert told == [
        "camera yard is changed, and online",
        "camera yard is changed, and online",
        "camera door is removed",
    ]
    assert json.loads(hall)["from"] == "file"
    assert json.loads(yard)["settings"] == {"rate": 5.0, "loop": True}

    (cli.folder / "cameras.toml").write_text(settings.text + "rate = 3\n")
    assert follow(again) == "changed: hall\n"
    (cli.folder / "cameras.toml").write_text("[cameras.hall")
    refused = cli.run("cameras", "reload")
    assert (refused.popen.returncode, len(refused.errors)) == (2, 1)

    file = cli.folder / ".local/state/fer_stream/events.db.cameras.json"
    assert json.loads(file.read_text())["cameras"].keys() == {"yard"}, "beside the journal, as the page says"
    assert service.stop() == 0
    assert "s3cret" not in service.err


def test_the_section_about_cells_is_followed(cli: Cli, tmp_path: Path) -> None:
    (settings,) = (block.text for block in blocks(PAGE) if block.title == "cell.toml")
    with_all, captures_only, add = [block.text for block in blocks(PAGE) if block.language == "bash"][5:]
    (example,) = [block.text for block in blocks(PAGE) if block.language == "text"][1:]
    folder = tmp_path / "nats"
    folder.mkdir()
    server = NatsServer(folder).start()
    here = f"tcp://127.0.0.1:{free_port()}"
    try:
        (cli.folder / "cell.toml").write_text(settings.replace("nats://192.0.2.1,192.0.2.2,192.0.2.3", server.address))

        def words(line: str) -> list[str]:
            name, *rest = line.replace("~", str(cli.folder)).replace("tcp://192.0.2.11:5550", here).split()
            assert name == "fer-stream"
            return rest

        keys = cli.folder / ".config/fer_stream/keys"
        kitchen = cli.start(*words(with_all), "--keys", keys, FER_STREAM_FLEET__MACHINE="kitchen")
        key, node = captures_only.splitlines()
        assert cli.run(*words(key)).out == f"{keys}/cellar.key\n"
        cellar = cli.start(*words(node))
        cellar.until_said("ready")
        door, desk, listing = add.splitlines()
        assert cli.run(*words(desk)).out == "camera desk is added, and online\n"
        told = cli.run(*words(door))
        assert told.out == "camera door is added\n"
        assert "the password file /run/secrets/door cannot be read" in told.err
        head, *rows = [line.split() for line in cli.run(*words(listing)).out.splitlines()]
        assert head == example.splitlines()[0].split()
        for row, shown in zip(rows, map(str.split, example.splitlines()[1:]), strict=True):
            assert (row[:2], row[3]) == (shown[:2], shown[3])
        assert rows[0][4] == "cellar"
        assert cellar.stop() == kitchen.stop() == 0
    finally:
        server.kill()
