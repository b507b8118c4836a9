"""The shape of the repository: who may import whom, and how large things may grow."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("auth", "credits", "chain", "edge")
FOUNDATION = ("rpc", "store", "process")
LAYERS = {
    # A service knows its own package, the foundation, and of other services only their errors.
    **dict.fromkeys(SERVICES, (*FOUNDATION, *(f"{name}.errors" for name in SERVICES))),
    "cli": (*FOUNDATION, *(f"{name}.errors" for name in SERVICES), "chain.dag"),
    "rpc": ("process",),
    "store": ("rpc.errors",),  # services.store.translation alone
    "process": (),
}

# An engine or protocol library is known to one adapter alone, so that it can be replaced there.
OWNERS = {
    "aiocache": ["edge/cache/memory.py"],
    "aiohttp": ["chain/networks/evm/jsonrpc.py", "cli/transfer.py"],
    "blake3": ["chain/dag/cid.py"],
    "click": ["cli/failure.py"],
    "eth_account": ["chain/networks/evm/signer.py"],
    "eth_utils": ["chain/networks/evm/transaction.py"],
    "fdb": ["store/engines/foundationdb.py", "store/keys.py"],
    "google.rpc": ["rpc/wire.py"],
    "envoy": ["process/envoy.py"],
    "grpc_health": ["rpc/grpcio_face.py", "rpc/health.py"],
    "grpc_reflection": ["rpc/reflection.py"],
    "httptools": ["edge/http/refusals.py", "edge/origins/connection.py"],
    "lmdb": ["store/engines/lmdb_tree.py"],
    "moka_py": ["edge/cache/memory.py"],
    "msgspec": ["store/records.py"],
    "protovalidate": ["rpc/validation.py"],
    "buf": ["rpc/rules.py"],
    "pydantic": ["process/settings.py"],
    "pydantic_core": ["process/settings.py"],
    "pydantic_settings": ["process/settings.py"],
    "pyvoy": ["process/envoy.py"],
    "sqlite3": ["edge/cache/catalog.py"],
    "structlog": ["process/logs.py"],
    "uvicorn": ["edge/http/server.py"],
    "uvloop": ["process/lifecycle.py"],
}
# Everything else that services may import from outside the standard library.
SHARED = {"google.protobuf", "grpc", "orjson", "rich", "services", "tollmesh", "typer"}

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_ENTRY_POINT_LINES = 400, 50, 100
MEDIAN_FILE_LINES, MEDIAN_FUNCTION_LINES = 150, 8
# What may be larger, and why.
LARGE_FILES: dict[str, str] = {}
LARGE_FUNCTIONS: dict[str, str] = {}


def _sources(*tops: str) -> list[Path]:
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def _lines(path: Path) -> int:
    return path.read_text().count("\n")


def test_a_package_imports_only_what_its_layer_allows() -> None:
    wrong = []
    for path in _sources("services"):
        package = path.relative_to(ROOT / "services").parts[0].removesuffix(".py")
        allowed = (package, *LAYERS.get(package, ()))
        for name in _imports(path):
            top, _, inner = name.partition(".")
            if top == "services" and not any(
                inner == layer or inner.startswith(f"{layer}.") for layer in allowed
            ):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_an_engine_or_protocol_library_is_imported_by_its_adapter_alone() -> None:
    wrong = []
    for path in _sources("services"):
        place = path.relative_to(ROOT / "services").as_posix()
        for name in _imports(path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names and top != "sqlite3":
                continue
            owner = next((lib for lib in OWNERS if f"{name}.".startswith(f"{lib}.")), None)
            if owner is not None and place not in OWNERS[owner]:
                wrong.append(f"services/{place} imports {name}, which belongs to {OWNERS[owner]}")
            if owner is None and not any(f"{name}.".startswith(f"{lib}.") for lib in SHARED):
                wrong.append(f"services/{place} imports {name}, which nobody owns")
    assert not wrong, "\n".join(wrong)


def test_every_owner_of_a_library_exists_and_uses_it() -> None:
    for library, places in OWNERS.items():
        for place in places:
            path = ROOT / "services" / place
            assert path.exists(), f"{place} owns {library} and is not there"
            assert any(f"{n}.".startswith(f"{library}.") for n in _imports(path)), (place, library)


def test_grpc_itself_is_spoken_in_rpc_alone() -> None:
    wrong = []
    for path in _sources("services"):
        place = path.relative_to(ROOT / "services").as_posix()
        if place.startswith("rpc/") or "grpc" not in {n.partition(".")[0] for n in _imports(path)}:
            continue
        used = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "grpc"
        }
        if path.name != "errors.py" or used != {"StatusCode"}:
            wrong.append(f"services/{place} uses {sorted(used)} of grpc")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("service", SERVICES)
def test_the_service_folders_have_one_shape(service: str) -> None:
    for name in ("__init__.py", "__main__.py", "settings.py", "servicer.py", "errors.py"):
        assert (ROOT / "services" / service / name).exists(), f"{service}/{name}"
    assert _lines(ROOT / "services" / service / "__main__.py") < MAX_ENTRY_POINT_LINES


@pytest.mark.parametrize("service", SERVICES)
def test_only_the_entry_point_reads_the_environment(service: str) -> None:
    for path in _sources(f"services/{service}"):
        text = path.read_text()
        assert "os.environ" not in text, path
        assert "getenv" not in text, path


def test_files_and_functions_stay_small() -> None:
    wrong = []
    for path in _sources("services", "protos/tollmesh/client", "tests", "bench"):
        place = path.relative_to(ROOT).as_posix()
        if _lines(path) > MAX_FILE_LINES and place not in LARGE_FILES:
            wrong.append(f"{place}: {_lines(path)} lines")
        for name, lines in _functions(path):
            if lines > MAX_FUNCTION_LINES and f"{place}:{name}" not in LARGE_FUNCTIONS:
                wrong.append(f"{place}:{name}: {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_the_median_file_and_function_are_small() -> None:
    sources = [path for path in _sources("services") if _lines(path) > 1]
    assert statistics.median(map(_lines, sources)) <= MEDIAN_FILE_LINES
    lengths = [lines for path in sources for _, lines in _functions(path)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES


def test_every_exception_to_a_rule_says_why() -> None:
    wrong = []
    for path in _sources("services", "tests", "bench"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            place = f"{path.relative_to(ROOT)}:{number}"
            if path == Path(__file__):
                continue
            if "# noqa" in line and "(" not in line.partition("# noqa")[2]:
                wrong.append(f"{place}: a noqa without its reason in brackets")
            if "type: ignore" in line and "#" not in line.partition("type: ignore")[2]:
                wrong.append(f"{place}: a type: ignore without its reason behind a #")
    assert not wrong, "\n".join(wrong)


def test_no_main_path_is_left_unfinished() -> None:
    marks = (
        "TO" + "DO",
        "FIX" + "ME",
        "NotImplemented" + "Error",
        "pytest." + "skip",
        "x" + "fail",
    )
    for path in _sources("services", "tests", "bench"):
        for mark in marks:
            assert mark not in path.read_text(), f"{path.relative_to(ROOT)} holds {mark}"
