"""The domain's values as messages of the contract."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.chain.v1 import chain_pb2 as pb

from services.chain.dag.cid import Cid
from services.chain.library import StoredObject
from services.chain.networks.port import BlockRef, Head
from services.chain.publications import PublicationRecord


def object_message(stored: StoredObject) -> pb.ObjectInfo:
    """What is known of a file."""
    return pb.ObjectInfo(
        cid=str(stored.cid),
        size_bytes=stored.info.size_bytes,
        name=stored.info.name or "",
        media_type=stored.media_type,
        finality=pb.Finality.ValueType(stored.finality),
        compressed=stored.info.compressed,
        encrypted=stored.info.encrypted,
    )


def head_message(head: Head, indexed: BlockRef | None) -> pb.GetHeadResponse:
    """How far a network has come; what is not known stays unset."""
    return pb.GetHeadResponse(
        latest=_block_message(head.latest),
        safe=_block_message(head.safe),
        finalized=_block_message(head.finalized),
        indexed=_block_message(indexed),
    )


def publication_message(network: str, cid: Cid, record: PublicationRecord) -> pb.Publication:
    """How far a file has come."""
    message = pb.Publication(
        cid=str(cid),
        network=network,
        state=pb.PublicationState.ValueType(record.state),
        nodes_total=record.progress.nodes_total,
        nodes_published=record.progress.nodes_published,
        nodes_finalized=record.progress.nodes_finalized,
        size_bytes=record.size_bytes,
        message=record.message,
    )
    message.create_time.CopyFrom(_timestamp(record.create_time_us))
    message.update_time.CopyFrom(_timestamp(record.update_time_us))
    return message


def _block_message(block: BlockRef | None) -> pb.BlockRef | None:
    return None if block is None else pb.BlockRef(number=block.number, hash="0x" + block.hash.hex())


def _timestamp(us: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMicroseconds(us)
    return timestamp
