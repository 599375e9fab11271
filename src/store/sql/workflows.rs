//! Workflows: the state as JSON, beside what it is found by; and the transition, one transaction for all that it changes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use sqlx::{QueryBuilder, Row};
use tokio::sync::watch;

use super::{
    Backend, Db, DbConnection, DbRow, Write, commit, deliveries, instances, json, leases, log,
    micros, query, requests, signed, snapshots, trouble, unsigned,
};
use crate::store::{
    Advance, Committed, EventFilter, EventsPage, Lease, NewWorkflow, Once, Snapshot, StoreError,
    WorkflowFilter, WorkflowStore,
};
use crate::workflow::{RecordedEvent, Workflow};

#[async_trait]
impl WorkflowStore for Backend {
    async fn start_workflow(
        &self,
        start: &NewWorkflow<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Committed, StoreError> {
        self.writing(self.start(start, once, now)).await
    }

    async fn advance_workflow(
        &self,
        advance: &Advance<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Committed, StoreError> {
        self.writing(self.advance(advance, once, now)).await
    }

    async fn answered_workflow(
        &self,
        once: &Once,
        now: SystemTime,
    ) -> Result<Option<Workflow>, StoreError> {
        read!(self, view => requests::earlier(view, Some(once), now))
    }

    async fn workflow(&self, workflow_id: &str) -> Result<Option<Workflow>, StoreError> {
        read!(self, view => one(view, workflow_id))
    }

    async fn workflows(
        &self,
        filter: &WorkflowFilter,
        before: Option<&str>,
        size: u32,
    ) -> Result<Vec<Workflow>, StoreError> {
        read!(self, view => list(view, filter, before, size))
    }

    async fn unfinished_workflows(&self) -> Result<Vec<String>, StoreError> {
        read!(self, view => unfinished(view))
    }

    async fn idle_workflows(&self) -> Result<Vec<(String, u64)>, StoreError> {
        read!(self, view => idle(view))
    }

    async fn events(
        &self,
        after_revision: u64,
        filter: &EventFilter,
        size: u32,
    ) -> Result<EventsPage, StoreError> {
        read!(self, view => log::read(view, after_revision, filter, size))
    }

    fn hints(&self) -> Option<watch::Receiver<u64>> {
        Backend::hints(self)
    }

    async fn compact_events(&self, up_to_revision: u64) -> Result<u64, StoreError> {
        self.writing(log::compact(self, up_to_revision)).await
    }

    async fn revision_before(&self, time: SystemTime) -> Result<u64, StoreError> {
        read!(self, view => log::revision_before(view, time))
    }

    async fn acquire_lease(
        &self,
        workflow_id: &str,
        holder: &str,
        time: Duration,
    ) -> Result<Lease, StoreError> {
        self.writing(leases::acquire(self, workflow_id, holder, time))
            .await
    }

    async fn renew_leases(
        &self,
        leases: &[Lease],
        time: Duration,
    ) -> Result<BTreeSet<String>, StoreError> {
        self.writing(leases::renew(self, leases, time)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        self.writing(leases::release(self, lease)).await
    }

    async fn put_snapshot(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.writing(snapshots::put_alone(self, snapshot)).await
    }

    async fn snapshot(&self, snapshot_id: &str) -> Result<Option<Snapshot>, StoreError> {
        read!(self, view => snapshots::read(view, snapshot_id))
    }

    async fn snapshots(
        &self,
        instance_id: Option<&str>,
        before: Option<&str>,
        size: u32,
    ) -> Result<Vec<Snapshot>, StoreError> {
        read!(self, view => snapshots::list(view, instance_id, before, size))
    }
}

async fn one(view: &mut DbConnection, workflow_id: &str) -> Result<Option<Workflow>, StoreError> {
    let row = query("SELECT workflow_id, state FROM workflows WHERE workflow_id = $1")
        .bind(workflow_id)
        .fetch_optional(view)
        .await
        .map_err(trouble)?;
    row.as_ref().map(workflow_of).transpose()
}

async fn list(
    view: &mut DbConnection,
    filter: &WorkflowFilter,
    before: Option<&str>,
    size: u32,
) -> Result<Vec<Workflow>, StoreError> {
    let mut query = QueryBuilder::<Db>::new("SELECT workflow_id, state FROM workflows WHERE TRUE");
    for (column, value) in [
        (" AND instance_id = ", filter.instance_id.as_deref()),
        (" AND kind = ", filter.kind.map(|kind| kind.as_str())),
        (" AND workflow_id < ", before),
    ] {
        if let Some(value) = value {
            query.push(column).push_bind(value);
        }
    }
    if !filter.statuses.is_empty() {
        query.push(" AND status IN (");
        let mut statuses = query.separated(", ");
        for status in &filter.statuses {
            statuses.push_bind(status.as_str());
        }
        query.push(")");
    }
    query.push(" ORDER BY workflow_id DESC LIMIT ");
    query.push_bind(i64::from(size));
    let rows = query
        .build()
        .persistent(super::keeps_statements())
        .fetch_all(view)
        .await;
    rows.map_err(trouble)?.iter().map(workflow_of).collect()
}

async fn unfinished(view: &mut DbConnection) -> Result<Vec<String>, StoreError> {
    let rows = query("SELECT workflow_id FROM workflows WHERE ended = 0 ORDER BY workflow_id")
        .fetch_all(view)
        .await
        .map_err(trouble)?;
    let ids = rows.iter().map(|row| row.try_get("workflow_id"));
    ids.collect::<Result<_, _>>().map_err(trouble)
}

async fn idle(view: &mut DbConnection) -> Result<Vec<(String, u64)>, StoreError> {
    let rows = query(concat!(
        "SELECT workflow_id, revision FROM workflows WHERE ended = 0 AND NOT EXISTS \
         (SELECT 1 FROM leases WHERE leases.workflow_id = workflows.workflow_id AND leases.expires_us > ",
        now_us!(),
        ") ORDER BY workflow_id"
    ))
    .fetch_all(view)
    .await
    .map_err(trouble)?;
    let idle = |row: &DbRow| {
        let id = row.try_get("workflow_id").map_err(trouble)?;
        Ok((id, unsigned(row, "revision")?))
    };
    rows.iter().map(idle).collect()
}

impl Backend {
    async fn start(
        &self,
        start: &NewWorkflow<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Committed, StoreError> {
        let mut write = self.begin().await?;
        if let Some(before) = earlier(&mut write, once, now).await? {
            return Ok(before);
        }
        if place_of(&mut write, start.workflow_id).await?.is_some() {
            return Err(StoreError::Moved(start.workflow_id.to_owned()));
        }
        let registered = match start.register {
            Some(spec) => instances::ensure(&mut write, spec, now).await?,
            None => None,
        };
        let recorded = RecordedEvent {
            workflow_id: start.workflow_id.to_owned(),
            instance_id: start.instance_id.to_owned(),
            revision: log::next_revision(&mut write).await?,
            sequence: 1,
            at_us: micros(now),
            actor: start.actor.to_owned(),
            event: start.event.clone(),
        };
        let workflow = (start.begin)(&recorded)?;
        put(&mut write, &workflow, &recorded).await?;
        log::append(&mut write, &recorded).await?;
        let of_event = (start.deliver, &recorded, &workflow);
        let deliveries = deliveries::of_event(&mut write, of_event, now).await?;
        requests::remember(&mut write, once, &workflow, now).await?;
        commit(write).await?;
        self.hint();
        Ok(Committed {
            workflow,
            event: Some(recorded),
            registered,
            deliveries,
        })
    }

    async fn advance(
        &self,
        advance: &Advance<'_>,
        once: Option<&Once>,
        now: SystemTime,
    ) -> Result<Committed, StoreError> {
        let id = advance.workflow_id;
        let mut write = self.begin().await?;
        if let Some(before) = earlier(&mut write, once, now).await? {
            return Ok(before);
        }
        let Some((instance_id, sequence)) = place_of(&mut write, id).await? else {
            return Err(StoreError::NoWorkflow(id.to_owned()));
        };
        if sequence != advance.expect_sequence {
            return Err(StoreError::Moved(id.to_owned()));
        }
        if let Some(epoch) = advance.epoch {
            leases::check(&mut write, id, epoch).await?;
        }
        let recorded = RecordedEvent {
            workflow_id: id.to_owned(),
            instance_id,
            revision: log::next_revision(&mut write).await?,
            sequence: sequence.saturating_add(1),
            at_us: micros(now),
            actor: advance.actor.to_owned(),
            event: advance.event.clone(),
        };
        let workflow = (advance.evolve)(&recorded)?;
        put(&mut write, &workflow, &recorded).await?;
        log::append(&mut write, &recorded).await?;
        let of_event = (advance.deliver, &recorded, &workflow);
        let deliveries = deliveries::of_event(&mut write, of_event, now).await?;
        for snapshot in advance.snapshots {
            snapshots::put(&mut write, snapshot).await?;
        }
        requests::remember(&mut write, once, &workflow, now).await?;
        commit(write).await?;
        self.hint();
        Ok(Committed {
            workflow,
            event: Some(recorded),
            registered: None,
            deliveries,
        })
    }
}

/// Refuses where a workflow holds an instance, other than this one.
pub(super) async fn refuse_if_locked(
    connection: &mut DbConnection,
    instance_id: &str,
    but_for: Option<&str>,
) -> Result<(), StoreError> {
    let row = query("SELECT workflow_id FROM workflows WHERE instance_id = $1 AND locks = 1")
        .bind(instance_id)
        .fetch_optional(connection)
        .await
        .map_err(trouble)?;
    let Some(row) = row else { return Ok(()) };
    let workflow_id: String = row.try_get("workflow_id").map_err(trouble)?;
    if but_for == Some(workflow_id.as_str()) {
        return Ok(());
    }
    Err(StoreError::Locked {
        instance_id: instance_id.to_owned(),
        workflow_id,
    })
}

async fn earlier(
    write: &mut Write,
    once: Option<&Once>,
    now: SystemTime,
) -> Result<Option<Committed>, StoreError> {
    let answer: Option<Workflow> = requests::earlier(write, once, now).await?;
    Ok(answer.map(|workflow| Committed {
        workflow,
        event: None,
        registered: None,
        deliveries: 0,
    }))
}

/// Of which instance a workflow is, and how many events it has had.
async fn place_of(write: &mut Write, id: &str) -> Result<Option<(String, u64)>, StoreError> {
    let row = query("SELECT instance_id, sequence FROM workflows WHERE workflow_id = $1")
        .bind(id)
        .fetch_optional(&mut **write)
        .await
        .map_err(trouble)?;
    let Some(row) = row else { return Ok(None) };
    let instance_id = row.try_get("instance_id").map_err(trouble)?;
    Ok(Some((instance_id, unsigned(&row, "sequence")?)))
}

/// Keeps the state that an event led to, with the lock of the instance.
async fn put(
    write: &mut Write,
    workflow: &Workflow,
    recorded: &RecordedEvent,
) -> Result<(), StoreError> {
    let is_after = workflow.workflow_id == recorded.workflow_id
        && workflow.sequence == recorded.sequence
        && workflow.revision == recorded.revision;
    if !is_after {
        return Err(StoreError::Unreadable(format!(
            "workflow {}: the state is not the one after event {}",
            recorded.workflow_id, recorded.sequence
        )));
    }
    let locks = workflow.locks_instance();
    if locks {
        let own = Some(recorded.workflow_id.as_str());
        refuse_if_locked(write, &recorded.instance_id, own).await?;
    }
    let status = workflow.status();
    query(
        "INSERT INTO workflows \
         (workflow_id, instance_id, kind, status, ended, locks, sequence, revision, started_us, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (workflow_id) DO UPDATE SET status = excluded.status, ended = excluded.ended, \
         locks = excluded.locks, sequence = excluded.sequence, revision = excluded.revision, state = excluded.state",
    )
    .bind(&recorded.workflow_id)
    .bind(&recorded.instance_id)
    .bind(workflow.spec.kind.as_str())
    .bind(status.as_str())
    .bind(i64::from(status.has_ended()))
    .bind(i64::from(locks))
    .bind(signed(recorded.sequence))
    .bind(signed(recorded.revision))
    .bind(workflow.started_us)
    .bind(readable(workflow)?)
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

/// The state as it is stored; one that could not be read again (a number that is none) would be lost.
fn readable(workflow: &Workflow) -> Result<String, StoreError> {
    let text = json(workflow)?;
    state_of(&workflow.workflow_id, &text).map(|_| text)
}

fn state_of(workflow_id: &str, text: &str) -> Result<Workflow, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Unreadable(format!("workflow {workflow_id}: {error}")))
}

fn workflow_of(row: &DbRow) -> Result<Workflow, StoreError> {
    let workflow_id: String = row.try_get("workflow_id").map_err(trouble)?;
    let state: String = row.try_get("state").map_err(trouble)?;
    state_of(&workflow_id, &state)
}
