"""One node of a DAG and its bytes, exactly as ``@autonomys/auto-dag-data`` 1.6.10 writes them.

A node is a dag-pb ``PBNode`` (links, field 2, first; then data, field 1; a link has only a hash)
whose data is a protobuf ``IPLDNodeData``. The fields are listed in docs/dag.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from services.chain.dag import wire
from services.chain.dag.cid import CID_PREFIX, DIGEST_BYTES, Cid
from services.chain.errors import NodeInvalidError

MAX_NODE_BYTES = 65_535
NODE_RESERVE_BYTES = 469
"""What the encoder keeps free of data in a node for everything else."""
MAX_CHUNK_BYTES = MAX_NODE_BYTES - NODE_RESERVE_BYTES
MAX_LINKS = 1_626
MAX_NAME_UNITS = 255
"""Of UTF-16, as the encoder counts: 255 letters, or 127 emoji."""

_CID_FIELD = wire.write_head(1, len(CID_PREFIX) + DIGEST_BYTES) + CID_PREFIX
_LINK_HEAD = wire.write_head(2, len(_CID_FIELD) + DIGEST_BYTES) + _CID_FIELD
_LINK_BYTES = len(_LINK_HEAD) + DIGEST_BYTES


class NodeType(IntEnum):
    """What a node is: field 1."""

    FILE = 0
    FILE_INLINK = 1
    FILE_CHUNK = 2
    FOLDER = 3
    FOLDER_INLINK = 4
    METADATA = 5
    METADATA_INLINK = 6
    METADATA_CHUNK = 7


@dataclass(frozen=True, slots=True)
class Compression:
    """The data is said to be one zlib stream. It may not be: look for its header before use."""

    level: int | None = None
    chunk_size: int | None = None


@dataclass(frozen=True, slots=True)
class Encryption:
    """The data is said to be encrypted with AES-256-GCM."""

    chunk_size: int | None = None


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """What was done to a file's bytes before they were stored, as its uploader recorded it."""

    compression: Compression | None = None
    encryption: Encryption | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One node. ``None`` is a field that is not written; zero and empty are written."""

    type: NodeType
    link_depth: int = 0
    size: int | None = None
    """Of a file, folder or chunk its bytes; of a FileInlink the number of its links."""
    name: str | None = None
    data: bytes | None = None
    links: tuple[Cid, ...] = ()
    upload_options: UploadOptions | None = None

    def encode(self) -> bytes:
        """The node's bytes.

        Raises:
            NodeInvalidError: the node breaks a limit of the format.
        """
        head, data = self._encode_head(), self.data or b""
        tail = b"" if self.upload_options is None else _encode_options(self.upload_options)
        content = wire.write_head(1, len(head) + len(data) + len(tail))
        links = [part for cid in self.links for part in (_LINK_HEAD, cid.digest)]
        raw = b"".join((*links, content, head, data, tail))
        _check_limits(len(raw), len(self.links))
        return raw

    @classmethod
    def decode(cls, raw: bytes) -> Node:
        """Read a node. Strict: only the bytes that ``encode`` would write are taken.

        That refuses unknown, repeated and reordered fields, numbers written longer than needed and
        zeros that the format leaves out: the real encoder writes none of them.

        Raises:
            NodeInvalidError: these bytes are not a node.
        """
        _check_limits(len(raw), 0)
        view = memoryview(raw)
        links, position = _decode_links(view)
        content = wire.Fields(view[position:]).content(1)
        if content is None:
            raise NodeInvalidError("A node has no data.")
        node = _decode_content(content, links)
        if node.encode() != raw:
            raise NodeInvalidError("A node is not written as the format's encoder writes it.")
        return node

    def _encode_head(self) -> bytes:
        """Everything of IPLDNodeData that stands before the data's own bytes."""
        head = b"" if self.type == 0 else wire.write_integer(1, self.type)
        if self.link_depth != 0:
            head += wire.write_integer(2, self.link_depth)
        if self.size is not None:
            head += wire.write_integer(3, self.size)
        if self.name is not None:
            head += wire.write_bytes(4, _encode_name(self.name))
        if self.data is not None:
            head += wire.write_head(5, len(self.data))
        return head


@lru_cache(maxsize=64)
def chunk_head(size_bytes: int) -> bytes:
    """What stands before the data in a FileChunk of ``size_bytes``; nothing stands after it."""
    head = wire.write_integer(1, NodeType.FILE_CHUNK) + wire.write_integer(3, size_bytes)
    head += wire.write_head(5, size_bytes)
    return wire.write_head(1, len(head) + size_bytes) + head


def encode_chunk(data: bytes | bytearray | memoryview) -> bytes:
    """The bytes of a FileChunk; the same as by ``Node``, with a single copy of the data."""
    return b"".join((chunk_head(len(data)), data))


def _check_limits(node_bytes: int, links: int) -> None:
    if node_bytes > MAX_NODE_BYTES:
        raise NodeInvalidError(f"A node has {node_bytes} bytes; the limit is {MAX_NODE_BYTES}.")
    if links > MAX_LINKS:
        raise NodeInvalidError(f"A node has {links} links; the limit is {MAX_LINKS}.")


def _encode_name(name: str) -> bytes:
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        raise NodeInvalidError("A name is not valid Unicode.") from None
    if units > MAX_NAME_UNITS:
        raise NodeInvalidError(f"A name has {units} characters; the limit is {MAX_NAME_UNITS}.")
    return name.encode()


def _encode_options(options: UploadOptions) -> bytes:
    content = b""
    if options.compression is not None:
        numbers = ((2, options.compression.level), (3, options.compression.chunk_size))
        content += wire.write_bytes(1, _encode_numbers(numbers))
    if options.encryption is not None:
        content += wire.write_bytes(2, _encode_numbers(((2, options.encryption.chunk_size),)))
    return wire.write_bytes(6, content)


def _encode_numbers(numbers: tuple[tuple[int, int | None], ...]) -> bytes:
    return b"".join(wire.write_integer(at, value) for at, value in numbers if value is not None)


def _decode_links(raw: memoryview) -> tuple[tuple[Cid, ...], int]:
    """The links at the beginning of a PBNode, and where they end."""
    count = 0
    while raw[count * _LINK_BYTES : count * _LINK_BYTES + len(_LINK_HEAD)] == _LINK_HEAD:
        count += 1
    end = count * _LINK_BYTES
    if end > len(raw):
        raise NodeInvalidError("A node ends in the middle of a link.")
    digests = bytes(raw[:end])
    first = len(_LINK_HEAD)
    return tuple(Cid(digests[at : at + 32]) for at in range(first, end, _LINK_BYTES)), end


def _decode_content(content: memoryview, links: tuple[Cid, ...]) -> Node:
    """The node whose IPLDNodeData this is."""
    fields = wire.Fields(content)
    name, data, options = fields.content(4), fields.content(5), fields.content(6)
    return Node(
        type=_decode_type(fields.integer(1, bits=32) or 0),
        link_depth=fields.integer(2, bits=32) or 0,
        size=fields.integer(3, bits=64),
        name=None if name is None else _decode_name(name),
        data=None if data is None else bytes(data),
        links=links,
        upload_options=None if options is None else _decode_options(options),
    )


def _decode_type(value: int) -> NodeType:
    try:
        return NodeType(value)
    except ValueError:
        raise NodeInvalidError(f"There is no node type {value}.") from None


def _decode_name(raw: memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise NodeInvalidError("A name is not UTF-8.") from None


def _decode_options(raw: memoryview) -> UploadOptions:
    fields = wire.Fields(raw)
    compression, encryption = fields.content(1), fields.content(2)
    return UploadOptions(
        None if compression is None else _decode_compression(wire.Fields(compression)),
        None if encryption is None else _decode_encryption(wire.Fields(encryption)),
    )


def _decode_compression(fields: wire.Fields) -> Compression:
    return Compression(fields.integer(2, bits=32), fields.integer(3, bits=32))


def _decode_encryption(fields: wire.Fields) -> Encryption:
    return Encryption(fields.integer(2, bits=32))
