"""The front door as Envoy knows it: external authorisation, access log, rate limit service."""
