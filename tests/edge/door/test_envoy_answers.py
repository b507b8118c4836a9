"""Answers to Envoy that are made by hand are what protobuf makes of them."""

from __future__ import annotations

import pytest
from tollmesh.envoy.v3 import authorization_pb2 as pb

from services.edge.door.envoy.authorization_servicer import TICKET_FIELD, ticket_metadata


@pytest.mark.parametrize("sizes", [range(1, 300), range(1000, 1025)])
def test_the_metadata_of_a_ticket_of_any_length(sizes: range) -> None:
    for size in sizes:
        answer = pb.CheckResponse()
        answer.dynamic_metadata.fields[TICKET_FIELD].string_value = "x" * size
        assert answer.SerializeToString() == ticket_metadata(b"x" * size)
