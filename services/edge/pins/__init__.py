"""Objects that accounts keep on this edge, paid ahead by the period."""
