"""HTTP origins behind the edge: a shared cache by RFC 9111, admitted and metered like objects."""
