"""The contracts: linted, formatted, never broken, and as their stubs say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from tollmesh.auth.v1 import auth_pb2
from tollmesh.chain.v1 import chain_pb2
from tollmesh.credits.v1 import credits_pb2, leases_pb2, ledger_pb2
from tollmesh.edge.v1 import edge_pb2
from tollmesh.errors.v1 import errors_pb2

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
BUF = ROOT / "deploy/node/node_modules/.bin/buf"
FILES = (auth_pb2, chain_pb2, credits_pb2, leases_pb2, ledger_pb2, edge_pb2)
SERVICES: list[ServiceDescriptor] = [
    service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
]
READS = ("Get", "List", "Stat", "Read", "Watch", "Export", "Audit", "Authorize")


def _buf(*arguments: str, directory: Path = PROTOS) -> subprocess.CompletedProcess[str]:
    assert BUF.exists(), "buf is not installed: run make test"
    return subprocess.run([BUF, *arguments], cwd=directory, capture_output=True, text=True)


def test_buf_finds_nothing_to_say_about_style() -> None:
    linted = _buf("lint")
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_protos_are_formatted() -> None:
    formatted = _buf("format", "--diff", "--exit-code", "--path", "tollmesh")
    assert formatted.returncode == 0, formatted.stdout


def test_nothing_breaks_the_landed_contracts() -> None:
    checked = _buf("breaking", "--against", "baseline.binpb")
    assert checked.returncode == 0, checked.stdout


def test_a_breaking_change_would_be_found(tmp_path: Path) -> None:
    shutil.copytree(PROTOS, tmp_path / "protos")
    proto = tmp_path / "protos/tollmesh/credits/v1/credits.proto"
    proto.write_text(proto.read_text().replace("int64 available = 3;", "int64 usable = 30;"))
    checked = _buf("breaking", "--against", "baseline.binpb", directory=tmp_path / "protos")
    assert checked.returncode != 0
    assert "available" in checked.stdout


def test_the_stubs_are_those_of_the_protos() -> None:
    command: list[str | Path] = [sys.executable, PROTOS / "generate.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_a_changed_stub_would_be_found(tmp_path: Path) -> None:
    shutil.copytree(PROTOS, tmp_path / "protos")
    stub = tmp_path / "protos/tollmesh/errors/v1/errors_pb2.pyi"
    stub.write_text(stub.read_text() + "\n")
    command: list[str | Path] = [sys.executable, tmp_path / "protos/generate.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 1
    assert "errors_pb2.pyi" in checked.stderr


def test_the_floors_of_the_package_are_those_of_the_generated_code() -> None:
    project = tomllib.loads((PROTOS / "pyproject.toml").read_text())["project"]
    stub = (PROTOS / "tollmesh/auth/v1/auth_pb2_grpc.py").read_text()
    message = (PROTOS / "tollmesh/auth/v1/auth_pb2.py").read_text()
    grpcio = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", stub)
    protobuf = re.search(r"# Protobuf Python Version: ([\d.]+)", message)
    assert grpcio
    assert protobuf
    assert project["dependencies"] == [f"grpcio>={grpcio[1]}", f"protobuf>={protobuf[1]}"]


def _comment(service: ServiceDescriptor, method: str) -> str:
    text = (PROTOS / service.file.name).read_text()
    body = text.partition(f"service {service.name} {{")[2]
    before = body.partition(f"rpc {method}(")[0]
    return before.rpartition("\n\n")[2].rpartition("{\n")[2]


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.full_name)
def test_every_rpc_states_its_errors_its_retry_rule_and_its_deadline(
    service: ServiceDescriptor,
) -> None:
    for method in service.methods_by_name:
        comment = _comment(service, method).lower()
        assert "error" in comment, method
        assert "retry" in comment or "idempotent" in comment, method
        assert "deadline" in comment, method


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.full_name)
def test_every_error_that_an_rpc_names_is_a_reason(service: ServiceDescriptor) -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118 (not a dict)
    codes = {"UNAUTHENTICATED", "PERMISSION_DENIED", "DOWNLOAD", "UPLOAD", "FINALIZED", "READ"}
    for method in service.methods_by_name:
        named = set(re.findall(r"\b[A-Z]{3,}(?:_[A-Z]+)*\b", _comment(service, method)))
        assert named <= reasons | codes | {"CID", "UTC"}, method


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.full_name)
def test_every_mutation_has_a_request_id_and_every_list_has_pages(
    service: ServiceDescriptor,
) -> None:
    for name, method in service.methods_by_name.items():
        fields = _flattened(method.input_type.fields_by_name)
        if name.startswith("List"):
            assert {"page_size", "page_token"} <= fields, name
            assert "next_page_token" in method.output_type.fields_by_name, name
        if not name.startswith(READS):
            assert "request_id" in fields, name


def _flattened(fields: object) -> set[str]:
    found = set()
    for name, field in dict(fields).items():  # type: ignore[call-overload]  # an untyped mapping
        found.add(name)
        if field.message_type is not None and field.message_type.full_name.startswith("tollmesh."):
            found |= set(field.message_type.fields_by_name)
    return found
