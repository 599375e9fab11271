CREATE TABLE agents (
    agent_id TEXT COLLATE "C" PRIMARY KEY,
    until_us BIGINT NOT NULL
);
