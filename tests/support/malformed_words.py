"""What malformed requests are made of: near misses of the grammar of RFC 9110, 9112 and 3986."""

from __future__ import annotations

# One word after the other: a line each would hide how they belong together.
# fmt: off
METHODS = ("get", "G\x00T", "", " ", "GET\t", "M" * 300, "PRI", "{}", "OPTIONS", "TRACE", "CONNECT")
VERSIONS = (
    "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/9.9", "HTTP/1.", "http/1.1", "",
    "HTTP/1.1 extra", "HTTP/11", "RTSP/1.0", "HTTP/1.1\x00", "ICE/1.0",
)
BREAKS = (
    b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\x00\r\n", b"\x0b", b" \r\n",
)
LENGTHS = ("0", "5", "-1", "+5", "5, 5", "5, 6", "0x5", "5 5", " 5", "", "1e1", "9" * 30)
CODINGS = (
    "chunked", "Chunked", "identity", "chunked, identity", "gzip, chunked", " chunked",
    "chunked\x00", "x", "chunked, chunked", "\x0bchunked", "xchunked", '"chunked"',
)
FRAMING_FIELDS = (
    "Content-Length", "Transfer-Encoding", "content-length", "TRANSFER-ENCODING",
    "Content-Length ", "Transfer-Encoding\t", " Transfer-Encoding", "Content_Length",
)
CHUNK_SIZES = (
    b"5", b"0", b"-1", b"f" * 17, b"g", b"", b"5;a=b", b"5;" + b"x" * 3000, b"0x5", b"5 ",
)
TRAILERS = (b"", b"Trailer: x\r\n", b"Content-Length: 5\r\n", b":\r\n")
ODD_TARGETS = (
    "*", "edge:443", "http://", "/..%2f..%2fetc/passwd", "/../../etc/passwd", "/%2e%2e/x", "?", "",
    "/" + "%ff" * 20, "/\x7f", "/\xe9\xff", "/a b", "/" + "/" * 500, "/." * 300, "/%c0%af",
    "/%u0041", "/\u00a0", "/objects/%00/x", "/objects//", "/pins/../objects", "/%", "/%zz",
)
QUERY_NAMES = (
    "download", "inline", "name", "ignoreEncoding", "days", "expires", "prefix", "x" * 90, "%",
    "%00", "", "a[]", "\xe9",
)
QUERY_VALUES = (
    "", "1", "true", "-1", "%", "%zz", "%ff%fe", "%00", "a" * 400, "..%2f", "&", "=", "+",
    "9" * 40, "%F0%9F%92%A9", "%ed%a0%80", "\xff", "a;b", "NaN", "[]", "{}", "%0d%0aX:y",
)
FIELDS = (
    "Range", "Range", "Range", "Range", "If-Range", "If-Match", "If-None-Match",
    "If-Modified-Since", "If-Unmodified-Since", "Expect", "Idempotency-Key", "Content-Disposition",
    "Authorization", "X-API-Key", "Connection", "Accept-Encoding", "Upgrade", "Host",
    "X-Request-Id", "Traceparent", "Origin", "Cache-Control", "Content-Type", "TE", "Max-Forwards",
    "Access-Control-Request-Method", "Want-Repr-Digest", "Cookie", "Content-Encoding",
)
RANGES = (
    "bytes=0-0", "bytes=-5", "bytes=0-,5-6,9-9", "bytes=-0", "bytes=-", "bytes=5-2",
    "bytes=" + "0-0," * 500, "bytes=0-" + "9" * 30, "bytes=" + "9" * 17 + "-", "lines=1-2",
    "bytes=a-b", "bytes=1-2,", "bytes =0-1", "bytes=0--1", "bytes=0-0,-1", "bytes=",
)
FIELD_VALUES = (
    *RANGES, '"', '""', 'W/"', '"' * 500, "*", "*,*",
    "100-continue", "200-ok", "\xc3\xa9", "\xff\xfe", "", "Bearer", "Bearer ", "bearer x y",
    "Basic \x00", "tm_", "tm_test_a_b", "close, keep-alive", "filename*=UTF-8''%ff",
    'attachment; filename="', "filename*=x'y", "filename*0*=x", "websocket", "h2c", "00-0-0-00",
    "Thu, 99 Foo 9999 99:99:99 GMT", "max-age=-1", 'no-cache="', "a" * 3000, "sha-256=99", "\t",
)
BAD_NAMES = (
    b"x", b"", b" x", b"x ", b"x\x00y", b"\xff", b":", b"x:y", b"(x)", b"Range", b"Host",
    b"Content-Type", b"x\ty", b"\x80\x01",
)
BAD_VALUES = (
    b"v", b"\x00", b"a\x00b", b"\x01\x02", b"a\rb", b"a\nb", b"\x7f", b"\xf0\x9f", b" folded",
    b"a\r\n b", b"a\r\n\tb",
)
NOT_HTTP = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00", b"\r\n" * 150, b"\x00" * 700,
    b"SSH-2.0-client\r\n", b'{"jsonrpc": "2.0"}\n', b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
# fmt: on
