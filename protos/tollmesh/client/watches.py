"""What a watcher was told, without I/O: so that it can go on watching over another call.

The contract's rule holds over all calls together: a message is told when its balance differs from
the one of the message told before, and its events compare these two.
"""

from __future__ import annotations

from tollmesh.credits.v1 import credits_pb2 as pb


class Watched:
    """A watch of one balance."""

    def __init__(self, request: pb.WatchBalanceRequest) -> None:
        self.request = request
        """Asks for what comes after the last message."""
        self._below = dict.fromkeys(sorted(request.thresholds), False)
        self._told: pb.Balance | None = None

    def news(self, answer: pb.WatchBalanceResponse) -> pb.WatchBalanceResponse | None:
        """The message as it is to be told; None when it says nothing new."""
        self.request.at_least_version = answer.version
        available = answer.balance.available
        crossed = [mark for mark, below in self._below.items() if (available < mark) != below]
        same = self.request.thresholds_only or answer.balance == self._told
        if self._told is not None and same and not crossed:
            return None
        self._told = answer.balance
        self._below.update((mark, available < mark) for mark in crossed)
        # The first message of a call has an event for each mark that the balance is below.
        del answer.events[:]
        for mark in crossed:
            answer.events.add(threshold=mark, below=available < mark)
        return answer
