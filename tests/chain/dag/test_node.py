from __future__ import annotations

import pytest

from services.chain.dag import wire
from services.chain.dag.cid import Cid
from services.chain.dag.node import (
    MAX_CHUNK_BYTES,
    MAX_LINKS,
    MAX_NODE_BYTES,
    Compression,
    Encryption,
    Node,
    NodeType,
    UploadOptions,
    encode_chunk,
)
from services.chain.errors import NodeInvalidError

LINK = b"\x12\x26\x0a\x24" + b"\x01\x55\x1f\x20" + bytes(32)


def pb_node(content: bytes, links: bytes = b"") -> bytes:
    return links + wire.write_bytes(1, content)


def test_the_limits_are_those_of_the_package() -> None:
    assert (MAX_NODE_BYTES, MAX_CHUNK_BYTES, MAX_LINKS) == (65_535, 65_066, 1_626)


@pytest.mark.parametrize(
    "node",
    [
        Node(NodeType.FILE),
        Node(NodeType.FILE, size=0, name="", data=b"", upload_options=UploadOptions()),
        Node(NodeType.FILE, link_depth=3, size=2**63 - 1, links=(Cid(bytes(32)), Cid(bytes(32)))),
        Node(NodeType.FILE_CHUNK, size=300, data=bytes(300)),
        Node(NodeType.FOLDER_INLINK, links=(Cid.of(b"child"),)),
        Node(
            NodeType.FILE,
            name="naïve-日本語-😀",
            upload_options=UploadOptions(
                Compression(level=0, chunk_size=1 << 20), Encryption(chunk_size=2**31 - 1)
            ),
        ),
        Node(NodeType.METADATA, upload_options=UploadOptions(Compression(), Encryption())),
        Node(NodeType.FILE, link_depth=2**31 - 1),
        Node(NodeType.FILE_INLINK, link_depth=1, size=1_626, links=(Cid(bytes(32)),) * 1_626),
    ],
)
def test_a_node_survives_its_bytes(node: Node) -> None:
    assert Node.decode(node.encode()) == node


def test_zeros_of_optional_fields_are_written_and_absent_ones_are_not() -> None:
    assert Node(NodeType.FILE).encode() == b"\x0a\x00"
    assert Node(NodeType.FILE, size=0).encode() == b"\x0a\x02\x18\x00"
    assert Node(NodeType.FILE, upload_options=UploadOptions()).encode() == b"\x0a\x02\x32\x00"


def test_links_stand_before_the_data() -> None:
    raw = Node(NodeType.FILE, links=(Cid(bytes(32)),)).encode()
    assert raw == LINK + b"\x0a\x00"


@pytest.mark.parametrize("size_bytes", [1, 127, 128, 16_383, 16_384, MAX_CHUNK_BYTES])
def test_the_quick_way_writes_chunks_the_same(size_bytes: int) -> None:
    data = b"\x05" * size_bytes
    node = Node(NodeType.FILE_CHUNK, size=size_bytes, data=data)
    assert encode_chunk(memoryview(data)) == encode_chunk(bytearray(data)) == node.encode()


def test_a_name_has_at_most_255_units_of_utf16() -> None:
    for name in ("a" * 255, "日" * 255, "😀" * 127 + "a"):
        assert Node.decode(Node(NodeType.FILE, name=name).encode()).name == name
    for name in ("a" * 256, "日" * 256, "😀" * 128):
        with pytest.raises(NodeInvalidError, match="name has 256 characters"):
            Node(NodeType.FILE, name=name).encode()


@pytest.mark.parametrize(
    "node",
    [
        Node(NodeType.FILE, name="\ud800"),
        Node(NodeType.FILE, data=bytes(65_536)),
        Node(NodeType.FILE_INLINK, links=(Cid(bytes(32)),) * 1_627),
    ],
)
def test_a_node_beyond_a_limit_is_not_written(node: Node) -> None:
    with pytest.raises(NodeInvalidError):
        node.encode()


NOT_CANONICAL = {
    "nothing at all": b"",
    "no data": LINK,
    "data before links": pb_node(b"") + LINK,
    "links around data": LINK + pb_node(b"") + LINK,
    "two datas": pb_node(b"") + pb_node(b"\x10\x01"),
    "an unknown field of the node": pb_node(b"") + wire.write_bytes(3, b"x"),
    "an unknown field of the content": pb_node(wire.write_bytes(7, b"x")),
    "a field with a large number": pb_node(b"\xfa\xff\xff\xff\x0f\x00"),
    "a field with number zero": pb_node(b"\x02\x00"),
    "fields out of order": pb_node(b"\x18\x01\x10\x01"),
    "a field twice": pb_node(b"\x18\x01\x18\x01"),
    "a zero type": pb_node(b"\x08\x00"),
    "a zero depth": pb_node(b"\x10\x00"),
    "an unknown type": pb_node(b"\x08\x08"),
    "a long varint": pb_node(b"\x18\x81\x00"),
    "an endless varint": pb_node(b"\x18" + b"\xff" * 10),
    "a varint cut short": pb_node(b"\x18\x80"),
    "a negative size": pb_node(b"\x18" + b"\xff" * 9 + b"\x01"),
    "a size above 64 bits": pb_node(b"\x18" + b"\xff" * 9 + b"\x7f"),
    "a negative depth": pb_node(b"\x10" + b"\xff" * 9 + b"\x01"),
    "a depth above 31 bits": pb_node(wire.write_integer(2, 2**31)),
    "a size that is bytes": pb_node(wire.write_bytes(3, b"x")),
    "a name that is a number": pb_node(wire.write_integer(4, 7)),
    "data that is a number": pb_node(wire.write_integer(5, 7)),
    "options that are a number": pb_node(wire.write_integer(6, 7)),
    "a 64-bit field": pb_node(b"\x19" + bytes(8)),
    "a group": pb_node(b"\x1b\x1c"),
    "a name that is not UTF-8": pb_node(wire.write_bytes(4, b"\xff")),
    "a name with a surrogate": pb_node(wire.write_bytes(4, b"\xed\xa0\x80")),
    "a name that is too long": pb_node(wire.write_bytes(4, b"a" * 256)),
    "a field longer than the node": pb_node(b"\x2a\x05x"),
    "a node cut short": b"\x0a\x05\x10",
    "bytes after the node": pb_node(b"") + b"\x00",
    "a link cut short": LINK[:-1],
    "a link with a name": wire.write_bytes(2, LINK[2:] + wire.write_bytes(2, b"n")) + pb_node(b""),
    "a link with a size": wire.write_bytes(2, LINK[2:] + b"\x18\x01") + pb_node(b""),
    "a link without a hash": b"\x12\x00" + pb_node(b""),
    "a link of another hash": LINK.replace(b"\x1f", b"\x1e") + pb_node(b""),
    "an unknown compression": pb_node(b"\x32\x04\x0a\x02\x08\x01"),
    "a zero compression": pb_node(b"\x32\x04\x0a\x02\x08\x00"),
    "an unknown encryption": pb_node(b"\x32\x04\x12\x02\x08\x01"),
    "an unknown option": pb_node(b"\x32\x02\x1a\x00"),
    "too many links": LINK * 1_627 + pb_node(b""),
    "too many bytes": pb_node(wire.write_bytes(5, bytes(65_530))),
}


@pytest.mark.parametrize("case", NOT_CANONICAL)
def test_bytes_that_the_encoder_would_not_write_are_refused(case: str) -> None:
    with pytest.raises(NodeInvalidError):
        Node.decode(NOT_CANONICAL[case])
