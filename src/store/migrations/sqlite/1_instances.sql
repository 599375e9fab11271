-- one row: the revision of the last change
CREATE TABLE counter (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO counter (one, revision) VALUES (1, 0);

CREATE TABLE instances (
    instance_id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    -- unix time in microseconds
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    -- JSON of InstanceSpec
    spec TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- requests that were carried out, so that a repeat changes nothing and gets the same answer
CREATE TABLE requests (
    principal TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    -- SHA-256 of what was asked
    digest BLOB NOT NULL,
    -- JSON of what was answered
    answer TEXT NOT NULL,
    done_us INTEGER NOT NULL,
    PRIMARY KEY (principal, method, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_done ON requests (done_us);
