"""Every vector of tests/vectors/autonomys: real output of the npm package."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.dag.node import Compression, Encryption, Node, NodeType, UploadOptions
from services.chain.dag.reader import FileReader, read_file
from services.chain.errors import NotAFileError
from tests.support.file_dag import VECTORS, StoredNodes, build, load_vectors, seeded_pieces

ALL = load_vectors()
FILES = [name for name, vector in ALL.items() if vector["head"]["meta"]["type"] == "File"]
OTHERS = [name for name in ALL if name not in FILES]
NODE_FILES = sorted((VECTORS / "nodes").iterdir())


def options_of(vector: dict[str, Any]) -> UploadOptions:
    compression = vector["options"].get("compression")
    encryption = vector["options"].get("encryption")
    return UploadOptions(
        compression and Compression(compression["level"], compression["chunkSize"]),
        encryption and Encryption(encryption["chunkSize"]),
    )


def builder_of(vector: dict[str, Any]) -> FileBuilder:
    limits = vector["options"]
    return FileBuilder(
        vector.get("filename"),
        upload_options=options_of(vector),
        max_node_bytes=limits.get("maxNodeSize", 65_535),
        max_links=limits.get("maxLinkPerNode", 1_626),
    )


def saved_nodes(vector: dict[str, Any]) -> StoredNodes:
    stored = StoredNodes()
    for text in vector["nodes"]:
        path = VECTORS / "nodes" / text
        if path.exists():
            stored.nodes[Cid.parse(text)] = path.read_bytes()
    return stored


def pieces_of(source: dict[str, Any]) -> Iterator[bytes]:
    if "literal" in source:
        yield source["literal"].encode()
    elif "fill" in source:
        yield bytes([source["fill"]]) * source["size"]
    else:
        yield from seeded_pieces(source["seed"], source["size"])


async def stored_bytes(root: Cid, stored: StoredNodes) -> bytes:
    return b"".join([piece async for piece in read_file(root, stored.fetch)])


@pytest.mark.parametrize("path", NODE_FILES, ids=lambda path: path.name[-8:])
def test_every_saved_node_decodes_and_encodes_to_the_same_bytes(path: Path) -> None:
    raw = path.read_bytes()
    assert str(Cid.of(raw)) == path.name
    assert Node.decode(raw).encode() == raw


def test_there_are_as_many_saved_nodes_as_the_vectors_say() -> None:
    assert len(NODE_FILES) == 92


@pytest.mark.parametrize("name", ALL)
def test_a_vectors_head_decodes_to_what_the_package_decoded(name: str) -> None:
    vector = ALL[name]
    meta = vector["head"]["meta"]
    node = Node.decode((VECTORS / "nodes" / vector["head_cid"]).read_bytes())
    assert node.type.name.title().replace("_", "") == meta["type"]
    assert (node.link_depth, node.size, node.name) == (
        meta["linkDepth"],
        meta["size"],
        meta.get("name"),
    )
    assert len(node.links) == vector["head"]["links"]
    data = meta.get("data")
    assert data == (None if node.data is None else f"<{len(node.data)} bytes>")
    assert (node.upload_options is not None) == ("uploadOptions" in meta)


@pytest.mark.parametrize("name", FILES)
async def test_a_files_vector_is_encoded_and_read_node_for_node(name: str) -> None:
    vector = ALL[name]
    saved = saved_nodes(vector)
    builder = builder_of(vector)
    if "input" in vector:
        pieces: Iterator[bytes] = pieces_of(vector["input"])
    else:  # compressed or encrypted: the stored bytes are in the nodes alone
        pieces = iter([await stored_bytes(Cid.parse(vector["head_cid"]), saved)])
    built = StoredNodes()
    for piece in pieces:
        built.nodes.update(builder.feed(piece))
    built.nodes.update(builder.finish())

    assert str(builder.root) == vector["head_cid"]
    assert len(built.nodes) == vector["node_count"]
    assert saved.nodes.items() <= built.nodes.items()
    if vector["nodes_saved"] == "all":
        assert saved.nodes == built.nodes
    assert builder.size == vector["stored_size"]

    digest = hashlib.sha256()
    built.nodes.update(saved.nodes)
    async for piece in read_file(builder.root, built.fetch):
        digest.update(piece)
    assert digest.hexdigest() == vector["stored_sha256"]


@pytest.mark.parametrize("name", FILES)
async def test_a_files_vector_reports_its_name_size_and_options(name: str) -> None:
    vector = ALL[name]
    reader = await FileReader.open(Cid.parse(vector["head_cid"]), saved_nodes(vector).fetch)
    assert reader.info.name == vector.get("filename")
    assert reader.info.size_bytes == vector["stored_size"]
    assert reader.info.upload_options == options_of(vector)
    assert reader.info.compressed == ("compression" in vector["options"])
    assert reader.info.encrypted == ("encryption" in vector["options"])


@pytest.mark.parametrize("name", OTHERS)
async def test_folders_and_metadata_are_recognised_and_not_read_as_files(name: str) -> None:
    vector = ALL[name]
    with pytest.raises(NotAFileError, match=r"names (a folder|metadata) and not a file"):
        await stored_bytes(Cid.parse(vector["head_cid"]), saved_nodes(vector))


def test_the_files_in_the_folder_vector_are_encoded_node_for_node() -> None:
    vector = ALL["folder"]
    expected = set(vector["nodes"])
    built: set[str] = set()
    for path, source in vector["input"].items():
        builder = FileBuilder(path.rpartition("/")[2])
        built |= {str(cid) for cid in build(b"".join(pieces_of(source)), builder).nodes}
        assert str(builder.root) == vector["children"][path]
    assert built < expected


def test_the_folders_of_the_vectors_link_to_their_children() -> None:
    folder = Node.decode((VECTORS / "nodes" / ALL["folder"]["head_cid"]).read_bytes())
    assert folder.type is NodeType.FOLDER
    children = ALL["folder"]["children"]
    assert {str(cid) for cid in folder.links} == {children["a.txt"], children["sub"]}


async def test_one_reader_reads_many_vectors_at_once() -> None:
    names = [name for name in FILES if ALL[name]["nodes_saved"] == "all"]
    heads = [Cid.parse(ALL[name]["head_cid"]) for name in names]
    stored = StoredNodes()
    for name in names:
        stored.nodes.update(saved_nodes(ALL[name]).nodes)
    contents = await asyncio.gather(*(stored_bytes(head, stored) for head in heads))
    for name, content in zip(names, contents, strict=True):
        assert hashlib.sha256(content).hexdigest() == ALL[name]["stored_sha256"]
