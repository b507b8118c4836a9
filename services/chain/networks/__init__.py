"""Networks: the port that the chain service reads and writes chains by, and its adapters."""
