"""The ordered key-value store with strictly serializable transactions, and its engines."""
