-- Everything that is "now": one row a thing, its JSON in `body`, its ciphertext in `blob`.
-- `seq` is the number of the change that wrote the row; a removed row keeps its key and its
-- number with neither body nor blob, so that whoever follows the changes notices.
CREATE TABLE state (
    kind TEXT NOT NULL,
    key  TEXT NOT NULL,
    seq  INTEGER NOT NULL,
    body TEXT,
    blob BLOB,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX state_seq ON state (seq);

-- Everything that happened: `record` is the canonical text that the tree commits to; the columns
-- before it are copies for searching, compared with it when the log is verified. `personal` is
-- the only part that may be erased: the record holds a salted commitment to it.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY,
    time        INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    environment TEXT,
    path        TEXT,
    record      BLOB NOT NULL,
    personal    BLOB
);
CREATE INDEX events_actor ON events (actor, seq);
CREATE INDEX events_path ON events (environment, path, seq);

-- The RFC 6962 tree in full tiles of 256 hashes (the shape of C2SP tlog-tiles): `level` 0 holds
-- leaf hashes, level n the roots of full tiles of level n-1.
CREATE TABLE tiles (
    level  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (level, number)
) WITHOUT ROWID;

-- The newest signed tree head, written in the transaction of the events it covers.
CREATE TABLE checkpoint (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    note     TEXT NOT NULL,
    frontier BLOB NOT NULL,  -- the roots of the full subtrees under it, so that appending needs no look back
    change   INTEGER NOT NULL -- the number of the newest change of `state`
);
