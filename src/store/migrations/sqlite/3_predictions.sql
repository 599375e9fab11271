-- the ledger of predictions; bounded by the agent, which deletes the oldest that have ended
CREATE TABLE predictions (
    prediction_id TEXT PRIMARY KEY,
    instance_id TEXT NOT NULL,
    lever TEXT NOT NULL,
    -- OPEN, CLOSED or EXPIRED
    state TEXT NOT NULL,
    -- unix time in microseconds
    made_us INTEGER NOT NULL,
    -- JSON of LedgerEntry
    entry TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX predictions_of_instance ON predictions (instance_id, state);
CREATE INDEX predictions_made ON predictions (made_us, prediction_id);
