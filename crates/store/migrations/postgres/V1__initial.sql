-- The tables of `migrations/sqlite`, which says what each is for, as PostgreSQL has them. Texts are compared by their
-- bytes, as in SQLite.
CREATE TABLE state (
    kind TEXT COLLATE "C" NOT NULL,
    key  TEXT COLLATE "C" NOT NULL,
    seq  BIGINT NOT NULL,
    body TEXT COLLATE "C",
    blob BYTEA,
    PRIMARY KEY (kind, key)
);
CREATE UNIQUE INDEX state_seq ON state (seq);

CREATE TABLE events (
    seq         BIGINT PRIMARY KEY,
    time        BIGINT NOT NULL,
    actor       TEXT COLLATE "C" NOT NULL,
    environment TEXT COLLATE "C",
    path        TEXT COLLATE "C",
    record      BYTEA NOT NULL,
    personal    BYTEA
);
CREATE INDEX events_actor ON events (actor, seq);
CREATE INDEX events_path ON events (environment, path, seq);

CREATE TABLE tiles (
    level  BIGINT NOT NULL,
    number BIGINT NOT NULL,
    hashes BYTEA NOT NULL,
    PRIMARY KEY (level, number)
);

-- The newest signed tree head. Its one row is there from the beginning, empty: whoever writes locks it, so that the
-- nodes write one after the other. `digest` is the hidden sum over the rows of `state`, for the other nodes.
CREATE TABLE checkpoint (
    id       BIGINT PRIMARY KEY CHECK (id = 1),
    note     TEXT COLLATE "C" NOT NULL,
    frontier BYTEA NOT NULL,
    change   BIGINT NOT NULL,
    digest   BYTEA NOT NULL
);
INSERT INTO checkpoint (id, note, frontier, change, digest) VALUES (1, '', '', 0, '');
