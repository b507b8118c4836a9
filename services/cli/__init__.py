"""The command line ``tollmesh``."""
