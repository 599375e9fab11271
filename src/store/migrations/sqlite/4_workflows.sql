-- one row: the log's revision, up to where the log is gone, and the last lease's epoch. Taken in the transaction that uses
-- them, so that one that is rolled back leaves no gap
CREATE TABLE workflow_counters (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    compacted_revision INTEGER NOT NULL,
    epoch INTEGER NOT NULL
) STRICT;
INSERT INTO workflow_counters (one, revision, compacted_revision, epoch) VALUES (1, 0, 0, 0);

-- what the events of each workflow lead to; beside it what it is found by
CREATE TABLE workflows (
    -- UUIDv7: in the order of time
    workflow_id TEXT PRIMARY KEY,
    -- an instance of the config file is not in `instances`, and one that is deleted leaves its workflows
    instance_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    ended INTEGER NOT NULL CHECK (ended IN (0, 1)),
    -- no other workflow may run on the instance
    locks INTEGER NOT NULL CHECK (locks IN (0, 1)),
    -- of its last event
    sequence INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    -- unix time in microseconds
    started_us INTEGER NOT NULL,
    -- JSON of Workflow
    state TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX workflows_lock ON workflows (instance_id) WHERE locks = 1;
CREATE INDEX workflows_of_instance ON workflows (instance_id, workflow_id);
CREATE INDEX workflows_unfinished ON workflows (workflow_id) WHERE ended = 0;

-- the log of all workflows, in the order of the commits
CREATE TABLE workflow_events (
    revision INTEGER PRIMARY KEY,
    workflow_id TEXT NOT NULL REFERENCES workflows (workflow_id),
    instance_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    -- unix time in microseconds
    at_us INTEGER NOT NULL,
    actor TEXT NOT NULL,
    type TEXT NOT NULL,
    -- JSON, {"v": 1, "type": …}
    event TEXT NOT NULL,
    UNIQUE (workflow_id, sequence)
) STRICT;
-- each has the revision within, by which the log of one is read on
CREATE INDEX workflow_events_of_instance ON workflow_events (instance_id);
CREATE INDEX workflow_events_of_workflow ON workflow_events (workflow_id);

CREATE TABLE leases (
    workflow_id TEXT PRIMARY KEY REFERENCES workflows (workflow_id),
    holder TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    -- unix time in microseconds, by SQLite's clock
    expires_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshots (
    -- UUIDv7: in the order of time
    snapshot_id TEXT PRIMARY KEY,
    instance_id TEXT NOT NULL,
    actuator TEXT NOT NULL,
    -- unix time in microseconds
    created_us INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    workflow_id TEXT,
    note TEXT NOT NULL,
    planned INTEGER NOT NULL CHECK (planned IN (0, 1))
) STRICT;
CREATE INDEX snapshots_of_instance ON snapshots (instance_id, snapshot_id) WHERE planned = 0;

-- settings, which may hold secrets: nothing else holds them
CREATE TABLE snapshot_targets (
    snapshot_id TEXT NOT NULL REFERENCES snapshots (snapshot_id),
    -- from 0, in the order of the targets
    place INTEGER NOT NULL,
    name TEXT NOT NULL,
    revision TEXT NOT NULL,
    digest TEXT NOT NULL,
    -- JSON: an array of strings
    launch_args TEXT NOT NULL,
    -- the last column, so that lists do not read it
    content BLOB NOT NULL,
    PRIMARY KEY (snapshot_id, place)
) STRICT;

-- what is to be delivered because of an event
CREATE TABLE outbox (
    place INTEGER PRIMARY KEY,
    delivery_id TEXT NOT NULL UNIQUE,
    -- of the event
    revision INTEGER NOT NULL,
    receiver TEXT NOT NULL,
    -- JSON
    body TEXT NOT NULL
) STRICT;
