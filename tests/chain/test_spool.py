"""Packs: whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.chain.spool import PACK_MAGIC, Pack, Spool, SpoolInUseError

ROOT = bytes(31) + b"\x01"
NODES = {bytes([n]) * 32: bytes([n]) * (n * 100 + 1) for n in range(5)}


def filled(spool: Spool) -> Pack:
    draft = spool.draft()
    for digest, node in [*NODES.items(), *NODES.items()]:
        draft.add(digest, node)
    return draft.keep(ROOT)


def test_a_kept_draft_is_a_pack_with_each_node_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    kept = filled(spool)
    spool.close()
    spool = Spool(tmp_path)
    pack = spool.pack(ROOT)
    assert pack == kept
    assert {digest: pack.read(digest) for digest in pack.places} == NODES
    assert list(pack.places) == list(NODES), "in the order in which they came"
    assert pack.read(bytes(31) + b"?") is None
    assert spool.roots() == [ROOT]
    spool.remove(ROOT)
    assert spool.pack(ROOT) is None
    assert pack.read(next(iter(NODES))) is None
    spool.close()


def test_what_a_crash_left_unfinished_is_removed(tmp_path: Path) -> None:
    (tmp_path / "0123.draft").write_bytes(PACK_MAGIC)
    Spool(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_damaged_pack_is_none(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path)
    path = filled(spool).path
    path.write_bytes(path.read_bytes()[:-cut])
    assert spool.pack(ROOT) is None
    spool.close()


def test_a_discarded_draft_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.draft().discard()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    spool.close()


def test_a_spool_has_one_user(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(SpoolInUseError):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()
