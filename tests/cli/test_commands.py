"""The command line against a running mesh, as an operator and an account holder use it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.cli import failure

FILE_BYTES = 200_000


@dataclass
class Cli:
    """Runs ``tollmesh`` with a home of its own."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "TOLLMESH_HOME": str(self.home),
                "COLUMNS": "200",
                **self.variables,
            },
            timeout=120,
        )
        assert done.returncode == status, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str | Path) -> Any:  # noqa: ANN401 (whatever the command prints)
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    cli = Cli(tmp_path_factory.mktemp("home"))
    printed = cli.run("up", "--detach").stdout
    try:
        assert "tm_local_" in printed
        assert "http://127.0.0.1:" in printed
        yield cli
    finally:
        cli.run("down")
        assert "No mesh runs here" in cli.run("down").stdout


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "naïve file.bin"
    path.write_bytes(secrets.token_bytes(FILE_BYTES))
    return path


def test_a_published_file_comes_back_whole_and_in_part(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    published = cli.json("publish", file, "--wait", "finalized")
    assert published["state"] == "finalized"
    assert published["cid"] == cli.run("cid", file).stdout.strip()
    copy = tmp_path / "copy"
    got = cli.json("get", published["cid"], "-o", copy)
    assert got["size_bytes"] == FILE_BYTES
    assert copy.read_bytes() == file.read_bytes()
    part = subprocess.run(
        [sys.executable, "-m", "services.cli", "get", published["cid"], "-o", "-", "--range=5-9"],
        capture_output=True,
        check=True,
        env={**os.environ, "TOLLMESH_HOME": str(cli.home)},
    )
    assert part.stdout == file.read_bytes()[5:10]
    status = cli.json("status", published["cid"])
    assert status["nodes_finalized"] == status["nodes_total"] > 1


def test_the_name_is_part_of_the_cid_and_needs_no_mesh(file: Path, tmp_path: Path) -> None:
    alone = Cli(tmp_path / "nowhere")
    own = alone.run("cid", file).stdout
    assert own == alone.run("cid", file, "--name", file.name).stdout
    assert own != alone.run("cid", file, "--name", "").stdout
    assert own != alone.run("cid", file, "--name", "other").stdout
    assert own.startswith("bafkr6i")
    assert own.count("\n") == 1


def test_a_command_without_a_mesh_says_how_to_get_one(tmp_path: Path) -> None:
    refused = Cli(tmp_path / "nowhere").run("balance", status=failure.MISUSED)
    assert "make up" in refused.stderr
    assert "TOLLMESH_" in refused.stderr


def test_accounts_and_keys_live_and_end(cli: Cli) -> None:
    made = cli.json("account", "create", "--name", "Ada")
    account = made["account"]["account_id"]
    assert "slower" in made["notices"][0]["message"]
    key = cli.json("key", "create", account, "--scope", "read", "--expires", "1h")
    assert key["credential"].startswith("tm_local_")
    assert account in {one["account_id"] for one in cli.json("account", "list")["accounts"]}
    key_id = key["api_key"]["key_id"]
    assert cli.json("key", "revoke", key_id)["api_key"]["revoke_time"]
    assert [one["key_id"] for one in cli.json("key", "list", account)["api_keys"]] == [key_id]
    assert cli.json("account", "suspend", account)["account"]["state"].endswith("SUSPENDED")
    assert cli.json("account", "reactivate", account)["account"]["state"].endswith("ACTIVE")
    assert cli.json("account", "close", account)["account"]["state"].endswith("CLOSED")
    cli.run("account", "reactivate", account, status=failure.FAILED)
    cli.run("account", "show", "acc_nobody", status=failure.ABSENT)


def test_credit_is_granted_once_a_request_id_and_stands_in_the_ledger(cli: Cli) -> None:
    account = cli.json("account", "create")["account"]["account_id"]
    for _ in range(2):
        cli.run(
            "grant", "500", "--account", account, "--request-id", "g1", "--expires", "2099-01-01"
        )
    balance = cli.json("balance", "--account", account)
    assert balance["balance"]["available"] == "500"
    assert len(balance["grants"]) == 1
    entries = cli.json("ledger", "--account", account)["entries"]
    assert [entry["kind"] for entry in entries] == ["ENTRY_KIND_GRANT"]
    people = cli.run("ledger", "--account", account).stdout
    assert "grant" in people
    assert "500" in people


def test_a_grant_may_recur_and_be_voided(cli: Cli) -> None:
    account = cli.json("account", "create")["account"]["account_id"]
    recurring = ("--every", "month", "--rollover", "20", "--until", "2099-01-01")
    granted = cli.json("grant", "100", "--account", account, *recurring)
    cli.run("grant", "100", "--account", account, "--rollover", "20", status=failure.MISUSED)
    assert "never" not in cli.run("balance", "--account", account).stdout
    grant_id = granted["grant_id"]
    voided = cli.json("credit", "void", grant_id, "--account", account, "--why", "a mistake")
    assert voided["amount"] == voided["balance"]["voided"] == "100"
    again = cli.run("credit", "void", grant_id, "--account", account, status=failure.FAILED)
    assert "VOIDED" in again.stderr
    assert "a mistake" in cli.run("ledger", "--account", account).stdout


def test_an_account_may_owe_and_a_debit_be_refunded(cli: Cli, file: Path) -> None:
    account = cli.json("account", "create")["account"]["account_id"]
    key = cli.json("key", "create", account)["credential"]
    terms = ("credit", "terms", "--account", account)
    assert cli.json(*terms)["overdraft_limit"] == "0"
    set_terms = cli.json(*terms, "--overdraft-limit", "1000000000", "--no-shadow")
    assert set_terms == cli.json(*terms)
    assert "1,000,000,000" in cli.run(*terms).stdout
    edge = json.loads((cli.home / "mesh.json").read_text())["edge_url"]
    owner = Cli(cli.home, {"TOLLMESH_KEY": key, "TOLLMESH_EDGE_URL": edge})
    owner.json("publish", file, "--wait", "published")
    (paid,) = [
        entry
        for entry in cli.json("ledger", "--account", account)["entries"]
        if entry["kind"] in {"ENTRY_KIND_DEBIT", "ENTRY_KIND_CAPTURE"}
    ]
    owed = cli.json("balance", "--account", account)["balance"]
    assert int(owed["available"]) == -int(paid["amount"])
    refunded = cli.json("credit", "refund", paid["entry_id"], "--account", account)
    assert refunded["amount"] == paid["amount"]
    assert refunded["balance"]["available"] == "0"
    assert "none" in cli.run("credit", "holds", "--account", account).stdout


def test_too_little_credit_is_a_status_of_its_own(cli: Cli, file: Path) -> None:
    account = cli.json("account", "create")["account"]["account_id"]
    key = cli.json("key", "create", account)["credential"]
    edge = json.loads((cli.home / "mesh.json").read_text())["edge_url"]
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "publish", str(file)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "TOLLMESH_HOME": str(cli.home),
            "TOLLMESH_KEY": key,
            "TOLLMESH_EDGE_URL": edge,
        },
    )
    assert done.returncode == failure.NO_CREDIT, done.stderr
    assert "INSUFFICIENT_CREDIT" in done.stderr


def test_what_is_not_there_and_what_is_no_cid_are_told_apart(cli: Cli, file: Path) -> None:
    absent = cli.run("cid", file, "--name", "never published").stdout.strip()
    assert "OBJECT_NOT_FOUND" in cli.run("get", absent, status=failure.ABSENT).stderr
    assert "CID_INVALID" in cli.run("get", "bafynotours", status=failure.MISUSED).stderr


def test_a_second_up_finds_the_running_mesh(cli: Cli) -> None:
    assert "The mesh runs" in cli.run("up", "--detach").stdout


@pytest.mark.parametrize(
    "command",
    [[], ["account"], ["key"], ["grant"], ["credit"], ["publish"], ["get"], ["cid"], ["up"]],
)
def test_every_command_explains_itself(command: list[str], tmp_path: Path) -> None:
    printed = Cli(tmp_path).run(*command, "--help").stdout
    assert "Usage:" in printed
