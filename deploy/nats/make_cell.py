"""Make what the NATS servers of a cell need: certificates, an nkey for each process, and who may do what.

    python deploy/nats/make_cell.py cell --server n1.example.org n2.example.org n3.example.org \
        --aggregator a1 a2 --node a1-node a2-node --operator desk --reader wall
    python deploy/nats/make_cell.py cell --reader hall      # later: a further user, or a further server
    python deploy/nats/make_cell.py cell --remove wall

It writes a folder for each server, to be copied to its /etc/nats, and a file with the seed of each user's nkey. Move
that file to its machine: only the public half remains, in cell.json. What exists is kept. After a change copy
users.conf to all servers, and run `nats-server --signal reload` there.

It needs openssl, and the package nkeys, which the extra `fleet` brings.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nkeys

HERE = Path(__file__).parent
DAYS = "3650"
ROLES = {
    "aggregator": "runs an aggregator, and may also capture cameras",
    "node": "captures cameras",
    "operator": "changes cameras and keys, deletes old events, moves a journal to these servers",
    "reader": "reads events, and can write nothing",
}
READERS_API = "FER.API"


def rights(role: str, cell: str) -> dict[str, list[str]]:
    """Return the subjects that a role may publish to and subscribe to."""
    state = ["$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>"]
    watch = [f"$JS.API.CONSUMER.CREATE.KV_{bucket}.>" for bucket in ("alive", "parts", "registry", "keys", "nodes")]
    make = ["$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*"]
    events = [f"fer.{cell}.ev.>", f"fer.{cell}.live.>"]
    publish = {
        "aggregator": [
            *(
                f"fer.{cell}.ev.>",
                f"fer.{cell}.an.>",
                "$KV.alive.>",
                "$KV.parts.>",
                "$KV.cameras.>",
                "$KV.keys.>",
                "$KV.nodes.>",
            ),
            *(*state, *watch, *make, "$JS.API.STREAM.PURGE.*"),
        ],
        "node": ["$KV.nodes.>", *state, *watch, *make],
        "operator": ["$KV.registry.>", "$KV.keys.>", "$KV.cameras.>", *state, *watch, *make, "$JS.API.STREAM.PURGE.*"],
    }[role]
    return {"publish": publish, "subscribe": ["_INBOX.>", *(events if role != "node" else [])]}


def users_conf(known: dict[str, Any]) -> str:
    """Return the accounts, their users and rights, in the servers' language.

    Whoever may ask JetStream in an account can name any subject for the answer, and so let the server write it into a
    stream. Therefore readers have an account of their own, which shares only questions about events and copies of them.
    """
    cell, streams = known["cell"], [*(f"FER_EV_{number:02x}" for number in range(known["partitions"])), "FER_AN"]
    questions = [f"STREAM.INFO.{stream}" for stream in (*streams, "KV_parts")]
    batches = [f"$JS.API.DIRECT.GET.{stream}" for stream in streams]
    live = f"fer.{cell}.live.>"
    readers = {
        "users": _users(known, "reader", {
            "publish": ["$JS.API.>", f"{READERS_API}.>"], "subscribe": ["_INBOX.>", live],
        }),
        # The server answers $JS.API.STREAM.INFO for the own account, so the question is given another name.
        "mappings": {f"$JS.API.{each}": f"{READERS_API}.{each}" for each in questions},
        "imports": [
            {"stream": {"account": "CELL", "subject": live}},
            *({"service": {"account": "CELL", "subject": f"$JS.API.{each}"}, "to": f"{READERS_API}.{each}"}
              for each in questions),
            *({"service": {"account": "CELL", "subject": each}} for each in batches),
        ],
    }  # fmt: skip
    roles = [role for role in ROLES if role != "reader"]
    inside = {
        "jetstream": "enabled",
        "users": [user for role in roles for user in _users(known, role, rights(role, cell))],
        "exports": [
            {"stream": live, "accounts": ["READERS"]},
            *({"service": f"$JS.API.{each}", "accounts": ["READERS"]} for each in questions),
            *({"service": each, "response": "stream", "accounts": ["READERS"]} for each in batches),
        ],
    }
    head = f"# Written by make_cell.py for the cell {cell}, partitions: {known['partitions']}. Do not edit.\n"
    return f"{head}accounts: {json.dumps({'CELL': inside, 'READERS': readers}, indent=1)}\n"


def _users(known: dict[str, Any], role: str, permissions: dict[str, list[str]]) -> list[dict[str, Any]]:
    users = [user for user in known["users"].values() if user["role"] == role]
    return [{"nkey": user["public"], "permissions": permissions} for user in users]


def openssl(*arguments: str | Path, text: str = "") -> None:
    """Run openssl.

    Raises:
        SystemExit: it failed; its message is shown.
    """
    done = subprocess.run(
        ["openssl", *map(str, arguments)],  # noqa: S607
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"make_cell: openssl {arguments[0]} failed: {done.stderr.strip()}")


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_authority(folder: Path) -> None:
    """Make the certificate authority of the cell, if there is none."""
    if not (folder / "ca.pem").exists():
        subject = ("-subj", "/CN=fer-stream cell", "-days", DAYS, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        openssl("req", "-x509", *_KEY, "-keyout", folder / "ca.key", "-out", folder / "ca.pem", *subject)


def make_server(folder: Path, name: str, names: list[str]) -> None:
    """Make the folder of a server: its certificate, if it has none, and what names it and its peers."""
    own = folder / name
    own.mkdir(exist_ok=True)
    if not (own / "server.pem").exists():
        request = own / "request.pem"
        openssl("req", "-new", *_KEY, "-keyout", own / "server.key", "-out", request, "-subj", f"/CN={name}")
        # localhost is for clients on the server's machine, and for Node's, which expects it of a server without a name.
        also = (
            f"subjectAltName={_alternative(name)},DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        signed: tuple[str | Path, ...] = (
            "-CA",
            folder / "ca.pem",
            "-CAkey",
            folder / "ca.key",
            "-CAcreateserial",
            "-days",
            DAYS,
        )
        signed += ("-extfile", "/dev/stdin", "-out", own / "server.pem")
        openssl("x509", "-req", "-in", request, *signed, text=also)
        request.unlink()
    shutil.copy(folder / "ca.pem", own)
    shutil.copy(HERE / "server.conf", own)
    routes = ", ".join(f'"tls://{f"[{each}]" if ":" in each else each}:6222"' for each in names)
    (own / "machine.conf").write_text(f"server_name: {json.dumps(name)}\nROUTES: [{routes}]\n")


def _alternative(name: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def make_user(folder: Path, name: str, role: str) -> dict[str, str]:
    """Make a user's nkey; return what cell.json holds about the user."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    (folder / f"{name}.nk").write_bytes(seed)
    return {"role": role, "public": nkeys.from_seed(bytearray(seed)).public_key.decode()}


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="make_cell.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write; it holds secrets")
    parser.add_argument("--cell", help="fleet.cell (default: site)")
    parser.add_argument("--partitions", type=int, help="fleet.partitions (default: 16)")
    parser.add_argument("--server", nargs="+", default=[], metavar="HOST", help="a server's name or address")
    for role, what in ROLES.items():
        parser.add_argument(f"--{role}", nargs="+", default=[], metavar="NAME", help=f"a user that {what}")
    parser.add_argument("--remove", nargs="+", default=[], metavar="NAME", help="a user or a server to remove")
    return parser.parse_args()


def main() -> None:
    """Make or change a cell's folder."""
    given = arguments()
    file = given.folder / "cell.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    for key, default in (("cell", "site"), ("partitions", 16)):
        value = getattr(given, key)
        if value not in (None, known.get(key, value)):
            sys.exit(f"make_cell: the cell has {key} {known[key]}, which cannot be changed: make another folder")
        known[key] = known.get(key, value if value is not None else default)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", known["cell"]) or not 1 <= known["partitions"] <= 256:
        sys.exit("make_cell: a cell's name has 1 to 32 letters, digits, '_' and '-', and a cell 1 to 256 partitions")
    users, servers = known.setdefault("users", {}), known.setdefault("servers", [])
    new = {name: role for role in ROLES for name in getattr(given, role)}
    for name in (*new, *given.server, *given.remove):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*", name):
            sys.exit(f"make_cell: {name!r} cannot be a name: use letters, digits, '_', '.' and '-'")
        if name in users and users[name]["role"] != new.get(name, users[name]["role"]):
            sys.exit(f"make_cell: there is a user {name} with the role {users[name]['role']}: give another name")
    if unknown := set(given.remove) - {*users, *servers}:
        sys.exit(f"make_cell: there is no user or server {min(unknown)} to remove")
    if not servers and not given.server:
        sys.exit("make_cell: name the servers: --server n1.example.org n2.example.org n3.example.org")

    os.umask(0o077)
    given.folder.mkdir(parents=True, exist_ok=True)
    make_authority(given.folder)
    known["servers"] = [each for each in dict.fromkeys([*servers, *given.server]) if each not in given.remove]
    for name in given.remove:
        users.pop(name, None)
        (given.folder / f"{name}.nk").unlink(missing_ok=True)
    for name, role in new.items():
        if name not in users:
            users[name] = make_user(given.folder, name, role)
    file.write_text(json.dumps(known, indent=1) + "\n")
    for name in known["servers"]:
        make_server(given.folder, name, known["servers"])
        (given.folder / name / "users.conf").write_text(users_conf(known))
    sys.stderr.write(
        f"{given.folder} has a folder for each server ({', '.join(known['servers'])}), ca.pem for every process, and a "
        "seed for each new user (NAME.nk); keep ca.key where only you can read it\n"
    )


if __name__ == "__main__":
    main()
