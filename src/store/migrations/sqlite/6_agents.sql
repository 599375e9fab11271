-- who uses a store that is shared; of this one it is one agent at a time
CREATE TABLE agents (
    agent_id TEXT PRIMARY KEY,
    -- unix time in microseconds, by the store's clock: until then it counts as there
    until_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- what the agent that measures an instance found last, as JSON
CREATE TABLE instances_found (
    instance_id TEXT PRIMARY KEY,
    agent_id TEXT NOT NULL,
    found TEXT NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
