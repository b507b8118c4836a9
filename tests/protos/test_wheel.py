"""The wheel of the stubs, as another team installs it: alone, in an empty virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.cli.mesh.local_mesh import LocalMesh
from services.cli.mesh.tenant import Tenant, grant_once, make_tenant

ROOT = Path(__file__).parents[2]
CONSUMER = Path(__file__).parent / "consumer"


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    _run("make", "stubs", f"DIST={out}", cwd=ROOT)
    return next(out.glob("tollmesh_protos-*.whl"))


def _empty_environment(directory: Path, *install: str | Path) -> Path:
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *install)
    return python


@pytest.fixture(scope="module")
def consumer(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _empty_environment(tmp_path_factory.mktemp("consumer"), wheel)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[LocalMesh]:
    async with LocalMesh(tmp_path) as mesh:
        yield mesh


@pytest.fixture
async def tenant(mesh: LocalMesh) -> Tenant:
    tenant = await make_tenant(mesh, "consumer")
    await grant_once(mesh, tenant, 100)
    return tenant


def test_the_wheel_holds_protos_stubs_and_types_and_needs_two_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    for suffix in (".proto", "_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
        assert f"tollmesh/credits/v1/credits{suffix}" in names
    assert "tollmesh/py.typed" in names
    needed = [line for line in lines if line.startswith("Requires-Dist") and "extra" not in line]
    assert [line.split(":")[1].strip().partition(">")[0] for line in needed] == [
        "grpcio",
        "protobuf",
    ]


async def test_a_typed_client_with_the_wheel_alone_authorizes_and_debits(
    consumer: Path, mesh: LocalMesh, tenant: Tenant
) -> None:
    script = CONSUMER / "client.py"
    targets = (mesh.addresses["auth"], mesh.addresses["credits"])
    printed = _run(consumer, script, *targets, tenant.key, cwd=consumer.parent)
    assert printed.split() == [tenant.account_id, "7", "93", "True"]


async def test_the_wheel_alone_has_a_client_that_debits(
    consumer: Path, mesh: LocalMesh, tenant: Tenant
) -> None:
    script = CONSUMER / "credit_client.py"
    printed = _run(consumer, script, mesh.addresses["credits"], tenant.account_id)
    assert printed.split() == ["93", "88", "INSUFFICIENT_CREDIT"]


def test_the_newest_protobuf_loads_the_stubs_and_so_does_the_oldest_allowed(
    consumer: Path, wheel: Path, tmp_path: Path
) -> None:
    modules = "tollmesh.edge.v1.edge_pb2_grpc, tollmesh.client"
    load = f"import google.protobuf as p, {modules}; print(p.__version__)"
    assert int(_run(consumer, "-c", load).split(".")[0]) >= 7
    oldest = _empty_environment(tmp_path / "oldest", wheel, "protobuf==6.31.1", "grpcio==1.76.0")
    assert _run(oldest, "-c", load).strip() == "6.31.1"


def test_mypy_strict_accepts_the_client(wheel: Path, tmp_path: Path) -> None:
    constraints = ROOT / "constraints.txt"
    python = _empty_environment(
        tmp_path / "typed", f"{wheel}[types]", "mypy", "--constraint", constraints
    )
    for script in ("client.py", "credit_client.py"):
        _run(python, "-m", "mypy", "--strict", CONSUMER / script, cwd=tmp_path)


def test_a_unit_suite_of_another_team_runs_on_the_shipped_stubs(
    wheel: Path, tmp_path: Path
) -> None:
    python = _empty_environment(tmp_path / "unit", wheel, "grpcio-testing", "pytest")
    suite = shutil.copy(CONSUMER / "test_billing.py", tmp_path)  # away from our own settings
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # and from those of folders above
    printed = _run(python, "-m", "pytest", "-q", suite, cwd=tmp_path)
    assert "3 passed" in printed, printed
