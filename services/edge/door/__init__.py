"""Somebody else's edge: requests admitted here, delivered by another proxy, and paid by report."""
