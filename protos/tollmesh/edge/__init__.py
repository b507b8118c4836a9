"""Generated contracts of Tollmesh."""
