"""The edge service: a cache near the reader, paid by the byte."""
