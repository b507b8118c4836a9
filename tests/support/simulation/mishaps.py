"""What befalls simulated processes and their cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn

from services.store.engines.simulated import SimulatedCluster
from tests.support.simulation.process import Process

A_SECOND = 12.0
"""How many mishaps there are, on average."""
DOWN_S = 0.3
"""How long a process is down at most."""
CUT_OFF_S = 0.6
"""How long nobody reaches the cluster at most."""
AHEAD_S = (0.5, 0.5, 60, 60, 3 * 3600, 3 * 3600, 3 * 86_400)
"""How far a clock is from the true time, at most one of these."""


class Mishaps:
    """They happen while ``go_on`` is running; the cluster counts them."""

    def __init__(self, cluster: SimulatedCluster, processes: Sequence[Process]) -> None:
        self._cluster, self._processes = cluster, processes
        self._loop = asyncio.get_running_loop()

    async def go_on(self) -> NoReturn:
        """One after the other, until it is cancelled."""
        dice = self._cluster.random
        events = [self._kill] * 5 + [self._jump] * 5 + [self._cut_off]
        while True:
            await asyncio.sleep(dice.expovariate(A_SECOND))
            process = dice.choice(self._processes)
            if process.is_up:
                dice.choice(events)(process)

    async def over(self) -> None:
        """Waits until every process is up and the cluster can be reached."""
        while not (self._cluster.reachable and all(each.is_up for each in self._processes)):  # noqa: ASYNC110 (virtual time)
            await asyncio.sleep(0.01)

    def _kill(self, process: Process) -> None:
        self._cluster.counts["process_killed"] += 1
        process.kill()
        self._loop.call_later(self._cluster.random.random() * DOWN_S, process.start)

    def _jump(self, process: Process) -> None:
        dice = self._cluster.random
        most_s = dice.choice(AHEAD_S)
        ahead_us = round(dice.uniform(-most_s, most_s) * 1_000_000)
        forwards = ahead_us > process.clock.ahead_us
        self._cluster.counts["clock_forwards" if forwards else "clock_backwards"] += 1
        process.clock.ahead_us = ahead_us

    def _cut_off(self, process: Process) -> None:
        del process  # all of them
        self._cluster.reachable = False
        self._loop.call_later(self._cluster.random.random() * CUT_OFF_S, self._reconnect)

    def _reconnect(self) -> None:
        self._cluster.reachable = True
