//! The log of all workflows: gap-free revisions in the order of the commits and a part of it that may be
//! forgotten.

use std::time::SystemTime;

use sqlx::{QueryBuilder, Row};

use super::{
    Backend, Db, DbConnection, DbRow, Write, commit, micros, query, signed, trouble, unsigned,
};
use crate::store::{EventFilter, EventsPage, StoreError};
use crate::workflow::{RecordedEvent, decode_event, encode_event};

/// Revisions that one transaction forgets: transitions come in between.
const COMPACTED_AT_ONCE: i64 = 5_000;

/// The revision of the event that this transaction adds.
pub(super) async fn next_revision(write: &mut Write) -> Result<u64, StoreError> {
    let row = query("UPDATE workflow_counters SET revision = revision + 1 RETURNING revision")
        .fetch_one(&mut **write)
        .await
        .map_err(trouble)?;
    unsigned(&row, "revision")
}

/// Adds an event.
pub(super) async fn append(write: &mut Write, recorded: &RecordedEvent) -> Result<(), StoreError> {
    let unreadable = |error| {
        let (id, sequence) = (&recorded.workflow_id, recorded.sequence);
        StoreError::Unreadable(format!("workflow {id}: event {sequence}: {error}"))
    };
    let text = encode_event(&recorded.event).map_err(unreadable)?;
    // the log is for ever: what could not be read again (a number that is none) does not get into it
    decode_event(&text).map_err(unreadable)?;
    query(
        "INSERT INTO workflow_events (revision, workflow_id, instance_id, sequence, at_us, actor, type, event) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(signed(recorded.revision))
    .bind(&recorded.workflow_id)
    .bind(&recorded.instance_id)
    .bind(signed(recorded.sequence))
    .bind(recorded.at_us)
    .bind(&recorded.actor)
    .bind(recorded.event.kind())
    .bind(text)
    .execute(&mut **write)
    .await
    .map_err(trouble)?;
    Ok(())
}

/// The log after a revision.
pub(super) async fn read(
    view: &mut DbConnection,
    after_revision: u64,
    filter: &EventFilter,
    size: u32,
) -> Result<EventsPage, StoreError> {
    // in one view of the store nothing is committed between the end of the log and what is read of it
    let (revision, compacted) = ends(view).await?;
    if after_revision < compacted {
        return Err(StoreError::Compacted {
            oldest_revision: compacted,
        });
    }
    let mut query = QueryBuilder::<Db>::new(
        "SELECT revision, workflow_id, instance_id, sequence, at_us, actor, event FROM workflow_events WHERE revision > ",
    );
    query.push_bind(signed(after_revision));
    for (column, value) in [
        (" AND workflow_id = ", filter.workflow_id.as_deref()),
        (" AND instance_id = ", filter.instance_id.as_deref()),
    ] {
        if let Some(value) = value {
            query.push(column).push_bind(value);
        }
    }
    query.push(" ORDER BY revision LIMIT ");
    query.push_bind(i64::from(size).saturating_add(1));
    let rows = query
        .build()
        .persistent(super::keeps_statements())
        .fetch_all(view)
        .await
        .map_err(trouble)?;
    let wanted = usize::try_from(size).unwrap_or(usize::MAX);
    let mut page = EventsPage {
        events: Vec::with_capacity(rows.len().min(wanted)),
        // beyond the end there is nothing to miss
        read_to_revision: revision.max(after_revision),
        more: rows.len() > wanted,
    };
    for row in rows.iter().take(wanted) {
        match event_of(row) {
            Ok(event) => page.events.push(event),
            // what is before it is read first
            Err(_) if !page.events.is_empty() => {
                page.more = true;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    if page.more {
        let last = page.events.last();
        page.read_to_revision = last.map_or(after_revision, |event| event.revision);
    }
    Ok(page)
}

/// Forgets the log up to a revision, as far as no workflow that can still go on needs it.
pub(super) async fn compact(store: &Backend, up_to_revision: u64) -> Result<u64, StoreError> {
    loop {
        let mut write = store.begin().await?;
        let (revision, compacted) = ends(&mut write).await?;
        let row = query(
            "SELECT min((SELECT min(revision) FROM workflow_events AS event \
             WHERE event.workflow_id = holder.workflow_id)) AS needed FROM workflows AS holder WHERE holder.locks = 1",
        )
        .fetch_one(&mut *write)
        .await
        .map_err(trouble)?;
        let needed: Option<i64> = row.try_get("needed").map_err(trouble)?;
        let free = needed.map_or(signed(revision), |needed| needed.saturating_sub(1));
        let end = signed(up_to_revision).min(free).min(signed(revision));
        let before = signed(compacted);
        if end <= before {
            return Ok(compacted);
        }
        let end = end.min(before.saturating_add(COMPACTED_AT_ONCE));
        query("DELETE FROM workflow_events WHERE revision <= $1")
            .bind(end)
            .execute(&mut *write)
            .await
            .map_err(trouble)?;
        query("UPDATE workflow_counters SET compacted_revision = $1")
            .bind(end)
            .execute(&mut *write)
            .await
            .map_err(trouble)?;
        commit(write).await?;
    }
}

/// The revision before the first event that is not older: where clocks were set back, nothing younger is taken for old.
pub(super) async fn revision_before(
    view: &mut DbConnection,
    time: SystemTime,
) -> Result<u64, StoreError> {
    let (revision, compacted) = ends(view).await?;
    let row =
        query("SELECT revision FROM workflow_events WHERE at_us >= $1 ORDER BY revision LIMIT 1")
            .bind(micros(time))
            .fetch_optional(view)
            .await
            .map_err(trouble)?;
    let Some(row) = row else { return Ok(revision) };
    Ok(unsigned(&row, "revision")?.saturating_sub(1).max(compacted))
}

/// The revision of the last event, and up to where the log is gone.
async fn ends(connection: &mut DbConnection) -> Result<(u64, u64), StoreError> {
    let row = query("SELECT revision, compacted_revision FROM workflow_counters")
        .fetch_one(connection)
        .await
        .map_err(trouble)?;
    Ok((
        unsigned(&row, "revision")?,
        unsigned(&row, "compacted_revision")?,
    ))
}

fn event_of(row: &DbRow) -> Result<RecordedEvent, StoreError> {
    let workflow_id: String = row.try_get("workflow_id").map_err(trouble)?;
    let sequence = unsigned(row, "sequence")?;
    let revision = unsigned(row, "revision")?;
    let text: String = row.try_get("event").map_err(trouble)?;
    let event = decode_event(&text).map_err(|error| {
        StoreError::Unreadable(format!(
            "workflow {workflow_id}: event {sequence} at revision {revision}: {error}"
        ))
    })?;
    Ok(RecordedEvent {
        workflow_id,
        instance_id: row.try_get("instance_id").map_err(trouble)?,
        revision,
        sequence,
        at_us: row.try_get("at_us").map_err(trouble)?,
        actor: row.try_get("actor").map_err(trouble)?,
        event,
    })
}
