"""The HTTP API in words that programs understand: a module for each module of handlers.

Each has ``PATHS``: by path template and method (lower case) an OpenAPI 3.1 Operation Object. HEAD
is not described: it follows wherever GET is and the route has it. ``services.edge.http.openapi``
puts the modules together; a test refuses routes without a description and the other way round.
"""
