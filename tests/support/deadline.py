"""How long tests wait for what must come."""

from __future__ import annotations

DEADLINE_S = 60.0
"""Only what hangs takes so long: on a busy machine a test may stand still for seconds."""
