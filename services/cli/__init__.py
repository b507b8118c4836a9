"""The command line ``tollmesh``: for operators and account holders, and to run a mesh locally."""
