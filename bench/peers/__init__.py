"""The same debit over other stores, for comparison."""
