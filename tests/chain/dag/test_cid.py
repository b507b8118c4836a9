from __future__ import annotations

import random
from contextlib import suppress

import pytest

from services.chain.dag.cid import CID_PREFIX, Cid
from services.chain.errors import CidInvalidError

TEXT = "bafkr6ifwnirybv7v7tfxvjtheqpfij5xkzjoquhugxku3elfsznykkxhda"


def test_a_cid_survives_its_text() -> None:
    assert str(Cid.parse(TEXT)) == TEXT
    assert len(TEXT) == 59


def test_random_cids_survive_their_text(rng: random.Random) -> None:
    for _ in range(500):
        cid = Cid(rng.randbytes(32))
        assert Cid.parse(str(cid)) == cid


def test_a_cid_names_only_its_own_bytes() -> None:
    cid = Cid.of(b"node")
    assert cid.names(b"node")
    assert not cid.names(b"nodes")
    assert cid == Cid(cid.digest)
    assert len({cid, Cid.of(b"node"), Cid.of(b"other")}) == 2


def test_the_binary_prefix_is_version_1_raw_blake3_32() -> None:
    assert CID_PREFIX == b"\x01\x55\x1f\x20"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_digest_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(CidInvalidError, match=f"not {length}"):
        Cid(bytes(length))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Not a CID"),
        ("hello", "Not a CID"),
        ("b", "Not a CID"),
        ("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "version 0"),
        ("zb2rhk6GMPQF3hfzwXTaNYFLKomMeC6UXdUt6jZKPpeVirLtV", "is base58"),
        ("f01551e20" + "00" * 32, "is hex"),
        ("uAVUfIA", "is base64url"),
        ("k2jmtxwhq", "is base36"),
        (TEXT.upper(), "base32 in upper case"),
        ("b" + TEXT[1:].upper(), "a to z or 2 to 7"),
        (TEXT[:-1] + "1", "a to z or 2 to 7"),
        (TEXT[:-1] + "ä", "a to z or 2 to 7"),
        (TEXT + "\n", "a to z or 2 to 7"),
        (" " + TEXT, "Not a CID"),
        (TEXT[:-1], "58 characters and not 59"),
        (TEXT + "a", "60 characters and not 59"),
        ("bafkr6i", "7 characters and not 59"),
        (TEXT[:-1] + "b", "bits that belong to no byte"),
        (
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
            r"codec is 0x70 \(dag-pb\)",
        ),
        ("bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "dag-cbor"),
        ("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", r"0x12 \(sha2-256\)"),
        ("bafkr4ifwnirybv7v7tfxvjtheqpfij5xkzjoquhugxku3elfsznykkxhda", "blake3 as registered"),
        ("bafkr6efwnirybv7v7tfxvjtheqpfij5xkzjoquhugxku3elfsznykkxhda", "has 16 bytes and not 32"),
        ("baikr6ifwnirybv7v7tfxvjtheqpfij5xkzjoquhugxku3elfsznykkxhda", "version 2"),
    ],
)
def test_another_text_is_refused_and_the_message_says_why(text: str, why: str) -> None:
    with pytest.raises(CidInvalidError, match=why) as refused:
        Cid.parse(text)
    assert len(text) < 9 or text not in str(refused.value)


def test_random_texts_raise_nothing_else(rng: random.Random) -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    for _ in range(2_000):
        text = list(TEXT)
        for _ in range(rng.randint(1, 3)):
            text[rng.randrange(len(text))] = rng.choice([*alphabet, "", "A", "0", "é", "aa"])
        mutated = "".join(text)
        with suppress(CidInvalidError):
            assert str(Cid.parse(mutated)) == mutated
