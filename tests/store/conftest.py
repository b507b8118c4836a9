"""Settings of the store's own tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no reason to fail; what fails is printed so that it can be tried again.
settings.register_profile("tollmesh", deadline=None, print_blob=True)
settings.load_profile("tollmesh")
