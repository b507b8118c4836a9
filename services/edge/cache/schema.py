"""The catalog's tables, version by version. A version's text never changes once it was released."""

from __future__ import annotations

from collections.abc import Sequence

FIRST = """
CREATE TABLE objects (
    added INTEGER PRIMARY KEY AUTOINCREMENT,
    cid TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    compressed INTEGER NOT NULL,
    encrypted INTEGER NOT NULL,
    file TEXT NOT NULL UNIQUE,
    sha256 BLOB NOT NULL
) STRICT;
CREATE TABLE finalities (
    cid TEXT NOT NULL, network TEXT NOT NULL, PRIMARY KEY (cid, network)
) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
    account_id TEXT NOT NULL,
    network TEXT NOT NULL,
    cid TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (account_id, network, cid)
) STRICT, WITHOUT ROWID;
CREATE TABLE requests (
    account_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    verb TEXT NOT NULL,
    object TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    time_s REAL NOT NULL,
    PRIMARY KEY (account_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE stops (clean INTEGER NOT NULL) STRICT;
INSERT INTO stops VALUES (1);
"""

# Pins are paid by time, and there are bans. A pin that was paid once is paid for 30 days from now.
_PAID_BY_TIME = """
CREATE TABLE edges (id TEXT NOT NULL) STRICT;
INSERT INTO edges VALUES (lower(hex(randomblob(12))));
ALTER TABLE pins ADD COLUMN pinned_at REAL NOT NULL DEFAULT 0;
ALTER TABLE pins ADD COLUMN paid_until REAL NOT NULL DEFAULT 0;
ALTER TABLE pins ADD COLUMN due_from REAL;
ALTER TABLE pins ADD COLUMN due_until REAL;
ALTER TABLE pins ADD COLUMN refused_since REAL;
UPDATE pins SET
    pinned_at = unixepoch('now'),
    paid_until = unixepoch('now') + 30 * 86400;
CREATE TABLE bans (
    cid TEXT NOT NULL PRIMARY KEY,
    network TEXT NOT NULL,
    reason TEXT NOT NULL,
    time_s REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""

VERSIONS: Sequence[str] = (FIRST, _PAID_BY_TIME)
"""What makes each version out of the one before; the first out of nothing."""
