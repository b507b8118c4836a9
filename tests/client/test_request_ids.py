from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from tollmesh.client import request_ids
from tollmesh.client.request_ids import new_request_id

from services.store.requests import SHORT_BYTES


def _many(count: int) -> list[str]:
    return [new_request_id() for _ in range(count)]


def test_ids_keep_to_the_contract_and_to_what_the_store_keeps_side_by_side() -> None:
    made = _many(1000)
    assert made == sorted(set(made))
    assert all(re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", one) for one in made)
    assert {len(one) for one in made} == {SHORT_BYTES}


def test_threads_never_get_the_same_id_also_when_the_numbers_of_a_prefix_are_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_ids, "_PER_PREFIX", 50)
    with ThreadPoolExecutor(8) as pool:
        made = [one for part in pool.map(_many, [2000] * 8) for one in part]
    assert len(set(made)) == len(made)


def test_a_forked_process_makes_ids_of_its_own() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, new_request_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs, ours = os.read(reader, 100).decode(), new_request_id()
    os.close(reader)
    os.close(writer)
    assert theirs[:18] != ours[:18]
    assert len(theirs) == len(ours)
