CREATE TABLE agents (
    agent_id TEXT COLLATE "C" PRIMARY KEY,
    until_us BIGINT NOT NULL
);

CREATE TABLE instances_found (
    instance_id TEXT COLLATE "C" PRIMARY KEY,
    agent_id TEXT COLLATE "C" NOT NULL,
    found TEXT NOT NULL,
    updated_us BIGINT NOT NULL
);
