"""Generated contracts of Tollmesh: credits, version 1."""
