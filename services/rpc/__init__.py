"""How a process speaks gRPC: server faces, client, errors. Knows no domain."""
