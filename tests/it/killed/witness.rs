//! What the database and the desk saw of leases and of what was done under them, told by neither the agents nor their store.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::rig::Rig;

/// Notes each lease that is given, and which one there was when an intent was committed.
const NOTES: &str = "\
CREATE TABLE noted_leases (workflow_id TEXT, holder TEXT, epoch BIGINT, at DOUBLE PRECISION);
CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO noted_leases VALUES (NEW.workflow_id, NEW.holder, NEW.epoch, extract(epoch FROM clock_timestamp()));
  RETURN NEW;
END $$;
CREATE TRIGGER note_given AFTER INSERT ON leases FOR EACH ROW EXECUTE FUNCTION note_lease();
CREATE TRIGGER note_taken AFTER UPDATE ON leases FOR EACH ROW WHEN (NEW.epoch <> OLD.epoch) EXECUTE FUNCTION note_lease();
CREATE TABLE noted_intents (workflow_id TEXT, epoch BIGINT, lease BIGINT);
CREATE FUNCTION note_intent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO noted_intents SELECT NEW.workflow_id, (NEW.event::json ->> 'epoch')::BIGINT, max(epoch) FROM noted_leases
    WHERE workflow_id = NEW.workflow_id;
  RETURN NEW;
END $$;
CREATE TRIGGER note_intent AFTER INSERT ON workflow_events FOR EACH ROW
  WHEN (NEW.event LIKE '%\"epoch\":%') EXECUTE FUNCTION note_intent();
";

/// Looks at a database from beside the agents.
pub(super) struct Witness {
    database: PgConnection,
}

/// A lease that was given.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) workflow_id: String,
    pub(super) holder: String,
    pub(super) epoch: i64,
    /// Unix time in seconds.
    pub(super) at: f64,
}

/// What was done under a lease though a later one had been given.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) intents: usize,
    pub(super) stale_intents: usize,
    pub(super) writes: usize,
    pub(super) stale_writes: Vec<String>,
}

impl Witness {
    /// Of a database that an agent has set up.
    pub(super) async fn of(url: &str) -> Self {
        let mut database = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(NOTES.to_owned()))
            .execute(&mut database)
            .await
            .unwrap();
        Self { database }
    }

    /// Agents that are there.
    pub(super) async fn agents(&mut self) -> Vec<String> {
        let rows = sqlx::query("SELECT agent_id FROM agents")
            .fetch_all(&mut self.database)
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Workflows that have not ended and that an agent holds now.
    pub(super) async fn held_by(&mut self, holder: &str) -> Vec<String> {
        let held = "SELECT workflow_id FROM leases WHERE holder = $1 AND expires_us > extract(epoch FROM clock_timestamp()) * 1e6";
        let rows = sqlx::query(held)
            .bind(holder)
            .fetch_all(&mut self.database)
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// All leases that were given, in their order.
    pub(super) async fn given(&mut self) -> Vec<Given> {
        let rows =
            sqlx::query("SELECT workflow_id, holder, epoch, at FROM noted_leases ORDER BY at")
                .fetch_all(&mut self.database)
                .await
                .unwrap();
        let given = rows.iter().map(|row| Given {
            workflow_id: row.get(0),
            holder: row.get(1),
            epoch: row.get(2),
            at: row.get(3),
        });
        given.collect()
    }

    /// What happened to a workflow and when, in seconds from a moment on.
    pub(super) async fn story(&mut self, workflow_id: &str, since: f64) -> Vec<(String, f64)> {
        let story = "SELECT type, at_us / 1e6 - $2 AS at FROM workflow_events WHERE workflow_id = $1 \
                     UNION ALL SELECT 'lease of ' || holder, at - $2 FROM noted_leases WHERE workflow_id = $1 ORDER BY at";
        let rows = sqlx::query(story)
            .bind(workflow_id)
            .bind(since)
            .fetch_all(&mut self.database)
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// What was committed and written under leases.
    pub(super) async fn seen(&mut self, rig: &Rig) -> Seen {
        let row = sqlx::query(
            "SELECT count(*), count(*) FILTER (WHERE epoch < lease) FROM noted_intents",
        )
        .fetch_one(&mut self.database)
        .await
        .unwrap();
        let mut seen = Seen {
            intents: usize::try_from(row.get::<i64, _>(0)).unwrap(),
            stale_intents: usize::try_from(row.get::<i64, _>(1)).unwrap(),
            ..Seen::default()
        };
        let given = self.given().await;
        for instance in &rig.instances {
            for write in rig.desk(instance).writes {
                seen.writes += 1;
                let (workflow_id, _) = write.operation_id.split_once('.').unwrap();
                // the clock is the same machine's
                let later = given.iter().find(|lease| {
                    lease.workflow_id == workflow_id
                        && lease.epoch > write.epoch
                        && lease.at < write.at
                });
                if let Some(lease) = later {
                    seen.stale_writes.push(format!("{write:?} after {lease:?}"));
                }
            }
        }
        seen
    }
}

/// How long after a moment each of these workflows had another holder, in order; those that ended before have none.
pub(super) fn takeovers(
    given: &[Given],
    workflows: &[String],
    (holder, since): (&str, f64),
) -> Vec<(Duration, String)> {
    let next = |workflow_id: &String| {
        let next = given.iter().find(|lease| {
            lease.workflow_id == *workflow_id && lease.holder != holder && lease.at > since
        })?;
        let after = Duration::from_secs_f64(next.at - since);
        Some((after, workflow_id.clone()))
    };
    workflows.iter().filter_map(next).collect()
}
