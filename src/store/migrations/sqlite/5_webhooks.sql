-- nothing ever wrote into it
DROP TABLE outbox;

-- who is told, and of what; those of the config file are here too, so that what they are owed has a place
CREATE TABLE webhooks (
    webhook_id TEXT PRIMARY KEY,
    -- CONFIG_FILE or CREATED
    source TEXT NOT NULL,
    -- JSON of WebhookSpec
    spec TEXT NOT NULL,
    -- unix time in microseconds, like all that end so
    created_us INTEGER NOT NULL,
    -- why it is told nothing, where it is not
    disabled TEXT,
    disabled_us INTEGER,
    failing_since_us INTEGER,
    -- the receiver wants nothing before
    not_before_us INTEGER,
    CHECK ((disabled IS NULL) = (disabled_us IS NULL))
) STRICT, WITHOUT ROWID;

-- nothing else holds them
CREATE TABLE webhook_secrets (
    -- the newest last
    place INTEGER PRIMARY KEY,
    webhook_id TEXT NOT NULL REFERENCES webhooks (webhook_id) ON DELETE CASCADE,
    secret TEXT NOT NULL,
    -- signed with until then; null for the newest
    until_us INTEGER
) STRICT;
CREATE INDEX webhook_secrets_of ON webhook_secrets (webhook_id);

-- the outbox: written with the event that causes it, kept for a while when it has ended
CREATE TABLE deliveries (
    -- the order in which they came to be
    place INTEGER PRIMARY KEY,
    delivery_id TEXT NOT NULL UNIQUE,
    webhook_id TEXT NOT NULL REFERENCES webhooks (webhook_id) ON DELETE CASCADE,
    -- a workflow or an instance: one after the other
    ordered_by TEXT NOT NULL,
    type TEXT NOT NULL,
    workflow_id TEXT,
    instance_id TEXT NOT NULL,
    -- of the event
    revision INTEGER,
    -- JSON
    body TEXT NOT NULL,
    -- PENDING, DELIVERED or FAILED
    state TEXT NOT NULL,
    -- the first of its order that is pending: the only one that is tried
    head INTEGER NOT NULL CHECK (head IN (0, 1)),
    attempts INTEGER NOT NULL,
    -- of them, those since it was last asked for
    tries INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    -- while it is claimed, when the claim is over
    due_us INTEGER NOT NULL,
    ended_us INTEGER,
    -- somebody tries it
    claimed_until_us INTEGER,
    -- how often somebody did: who claimed it before can record nothing
    claims INTEGER NOT NULL,
    CHECK (head = 0 OR state = 'PENDING')
) STRICT;
CREATE INDEX deliveries_due ON deliveries (webhook_id, due_us) WHERE head = 1;
CREATE INDEX deliveries_claimed ON deliveries (webhook_id) WHERE claimed_until_us IS NOT NULL;
CREATE INDEX deliveries_in_order ON deliveries (webhook_id, ordered_by, place) WHERE state = 'PENDING';
CREATE INDEX deliveries_ended ON deliveries (ended_us) WHERE ended_us IS NOT NULL;
CREATE INDEX deliveries_of_webhook ON deliveries (webhook_id, place);

CREATE TABLE delivery_attempts (
    delivery_id TEXT NOT NULL REFERENCES deliveries (delivery_id) ON DELETE CASCADE,
    -- from 1
    number INTEGER NOT NULL,
    started_us INTEGER NOT NULL,
    duration_seconds REAL NOT NULL,
    -- of HTTP; null where there was no answer
    status INTEGER,
    -- in words, where there was none
    problem TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT, WITHOUT ROWID;
