//! A whole store as text, to keep or to move into another: a line of JSON for each row, between a head and an end that count
//! and digest them. Numbers of steps of the schema are the same in both backends, so that a row means the same in both.

use std::io::{BufRead, Write};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::StoreError;

/// Moves a whole store.
#[async_trait]
pub trait TransferStore: Send + Sync {
    /// Writes all that the store holds, as it is at one time. It holds secrets.
    ///
    /// # Errors
    /// A store that cannot be read, text that cannot be written.
    async fn export(&self, to: &mut (dyn Write + Send)) -> Result<Transferred, TransferError>;

    /// Reads what [`TransferStore::export`] wrote into a store that holds nothing yet: all of it, or nothing.
    ///
    /// # Errors
    /// A store that holds something, text that is none of a store, is not whole or is of another schema, a store that cannot
    /// be written.
    async fn import(&self, from: &mut (dyn BufRead + Send)) -> Result<Transferred, TransferError>;

    /// How many rows each table has.
    ///
    /// # Errors
    /// A store that cannot be read.
    async fn rows(&self) -> Result<Vec<(&'static str, u64)>, StoreError>;
}

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transferred {
    /// Step of the schema.
    pub schema: i64,
    /// Rows of each table, in the order in which they were moved.
    pub rows: Vec<(&'static str, u64)>,
}

/// Why a store was not moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The text could not be read or written.
    #[error("{0}")]
    Text(#[from] std::io::Error),
    /// It is no export of a store.
    #[error("line {line}: {problem}")]
    Malformed {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// It is one of another schema.
    #[error(
        "the export is of schema {found} and this version has schema {known}: {}",
        if found > known {
            "import it with the version that wrote it, or a newer one"
        } else {
            "open the store that it came from with this version, which upgrades it, and export it again"
        }
    )]
    Schema {
        /// Of the export.
        found: i64,
        /// Of this version.
        known: i64,
    },
    /// The store is in use or was.
    #[error("the store holds something already (table {0}): import into a new and empty one")]
    NotEmpty(&'static str),
}

/// A table, what it has and in what order it is read.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// What its rows are ordered by: each is before what refers to it.
    pub(super) order: &'static str,
    /// One row that is there from the beginning.
    pub(super) is_counter: bool,
}

/// What a column holds. Each may be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Real,
    /// Base64 in the export.
    Bytes,
}

use Kind::{Bytes, Integer, Real, Text};

const fn table(
    name: &'static str,
    order: &'static str,
    columns: &'static [(&'static str, Kind)],
) -> Table {
    Table {
        name,
        columns,
        order,
        is_counter: false,
    }
}

/// All tables but that of leases: who holds one holds none of a store that was moved.
pub(super) const TABLES: [Table; 13] = [
    Table {
        is_counter: true,
        ..table("counter", "one", &[("one", Integer), ("revision", Integer)])
    },
    Table {
        is_counter: true,
        ..table(
            "workflow_counters",
            "one",
            &[
                ("one", Integer),
                ("revision", Integer),
                ("compacted_revision", Integer),
                ("epoch", Integer),
            ],
        )
    },
    table(
        "instances",
        "instance_id",
        &[
            ("instance_id", Text),
            ("revision", Integer),
            ("created_us", Integer),
            ("updated_us", Integer),
            ("spec", Text),
        ],
    ),
    table(
        "requests",
        "principal, method, request_id",
        &[
            ("principal", Text),
            ("method", Text),
            ("request_id", Text),
            ("digest", Bytes),
            ("answer", Text),
            ("done_us", Integer),
        ],
    ),
    table(
        "predictions",
        "prediction_id",
        &[
            ("prediction_id", Text),
            ("instance_id", Text),
            ("lever", Text),
            ("state", Text),
            ("made_us", Integer),
            ("entry", Text),
        ],
    ),
    table(
        "workflows",
        "workflow_id",
        &[
            ("workflow_id", Text),
            ("instance_id", Text),
            ("kind", Text),
            ("status", Text),
            ("ended", Integer),
            ("locks", Integer),
            ("sequence", Integer),
            ("revision", Integer),
            ("started_us", Integer),
            ("state", Text),
        ],
    ),
    table(
        "workflow_events",
        "revision",
        &[
            ("revision", Integer),
            ("workflow_id", Text),
            ("instance_id", Text),
            ("sequence", Integer),
            ("at_us", Integer),
            ("actor", Text),
            ("type", Text),
            ("event", Text),
        ],
    ),
    table(
        "snapshots",
        "snapshot_id",
        &[
            ("snapshot_id", Text),
            ("instance_id", Text),
            ("actuator", Text),
            ("created_us", Integer),
            ("created_by", Text),
            ("workflow_id", Text),
            ("note", Text),
            ("planned", Integer),
        ],
    ),
    table(
        "snapshot_targets",
        "snapshot_id, place",
        &[
            ("snapshot_id", Text),
            ("place", Integer),
            ("name", Text),
            ("revision", Text),
            ("digest", Text),
            ("launch_args", Text),
            ("content", Bytes),
        ],
    ),
    table(
        "webhooks",
        "webhook_id",
        &[
            ("webhook_id", Text),
            ("source", Text),
            ("spec", Text),
            ("created_us", Integer),
            ("disabled", Text),
            ("disabled_us", Integer),
            ("failing_since_us", Integer),
            ("not_before_us", Integer),
        ],
    ),
    table(
        "webhook_secrets",
        "place",
        &[
            ("place", Integer),
            ("webhook_id", Text),
            ("secret", Text),
            ("until_us", Integer),
        ],
    ),
    table(
        "deliveries",
        "place",
        &[
            ("place", Integer),
            ("delivery_id", Text),
            ("webhook_id", Text),
            ("ordered_by", Text),
            ("type", Text),
            ("workflow_id", Text),
            ("instance_id", Text),
            ("revision", Integer),
            ("body", Text),
            ("state", Text),
            ("head", Integer),
            ("attempts", Integer),
            ("tries", Integer),
            ("created_us", Integer),
            ("due_us", Integer),
            ("ended_us", Integer),
            ("claimed_until_us", Integer),
            ("claims", Integer),
        ],
    ),
    table(
        "delivery_attempts",
        "delivery_id, number",
        &[
            ("delivery_id", Text),
            ("number", Integer),
            ("started_us", Integer),
            ("duration_seconds", Real),
            ("status", Integer),
            ("problem", Text),
        ],
    ),
];

/// A line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    /// The first.
    PerfagentStore {
        /// Of this form.
        version: u32,
        schema: i64,
    },
    /// A row of a table.
    Row {
        table: String,
        values: Map<String, Value>,
    },
    /// The last.
    End {
        rows: u64,
        /// Of all lines before it, in hexadecimal.
        sha256: String,
    },
}

/// The form of an export that this version writes and reads.
pub(super) const VERSION: u32 = 1;

/// What is longer is no row of a store.
const LONGEST_LINE: u64 = 1 << 30;

/// A row with the table that it is of.
type Row = (&'static Table, Map<String, Value>);

/// Writes lines, and counts and digests them.
pub(super) struct LinesOut<'t> {
    to: &'t mut (dyn Write + Send),
    rows: u64,
    digest: ring::digest::Context,
}

impl<'t> LinesOut<'t> {
    pub(super) fn begin(
        to: &'t mut (dyn Write + Send),
        schema: i64,
    ) -> Result<Self, TransferError> {
        let mut out = Self {
            to,
            rows: 0,
            digest: ring::digest::Context::new(&ring::digest::SHA256),
        };
        out.line(&Line::PerfagentStore {
            version: VERSION,
            schema,
        })?;
        Ok(out)
    }

    pub(super) fn row(
        &mut self,
        table: &Table,
        values: Map<String, Value>,
    ) -> Result<(), TransferError> {
        self.rows += 1;
        self.line(&Line::Row {
            table: table.name.to_owned(),
            values,
        })
    }

    pub(super) fn end(mut self) -> Result<(), TransferError> {
        let sha256 = hex(self.digest.clone());
        let rows = self.rows;
        self.line(&Line::End { rows, sha256 })?;
        Ok(self.to.flush()?)
    }

    fn line(&mut self, line: &Line) -> Result<(), TransferError> {
        let mut text = serde_json::to_vec(line).map_err(std::io::Error::other)?;
        text.push(b'\n');
        self.digest.update(&text);
        Ok(self.to.write_all(&text)?)
    }
}

/// Reads lines, and holds them against what the end says of them.
pub(super) struct LinesIn<'f> {
    from: &'f mut (dyn BufRead + Send),
    line: u64,
    rows: u64,
    digest: ring::digest::Context,
}

impl<'f> LinesIn<'f> {
    pub(super) fn begin(
        from: &'f mut (dyn BufRead + Send),
        known: i64,
    ) -> Result<Self, TransferError> {
        let mut lines = Self {
            from,
            line: 0,
            rows: 0,
            digest: ring::digest::Context::new(&ring::digest::SHA256),
        };
        match lines.line()? {
            Some(Line::PerfagentStore {
                version: VERSION,
                schema,
            }) if schema == known => Ok(lines),
            Some(Line::PerfagentStore {
                version: VERSION,
                schema: found,
            }) => Err(TransferError::Schema { found, known }),
            Some(Line::PerfagentStore { version, .. }) => Err(lines.malformed(format!(
                "it is of form {version}, which this version does not know"
            ))),
            _ => Err(lines.malformed("it is no export of a store".to_owned())),
        }
    }

    /// The next row; none at an end that is as it should be.
    pub(super) fn row(&mut self) -> Result<Option<Row>, TransferError> {
        let so_far = self.digest.clone();
        match self.line()? {
            Some(Line::Row { table, values }) => {
                self.rows += 1;
                let known = TABLES.iter().find(|known| known.name == table);
                let known =
                    known.ok_or_else(|| self.malformed(format!("there is no table {table}")))?;
                let fits = values.len() == known.columns.len()
                    && known
                        .columns
                        .iter()
                        .all(|(name, _)| values.contains_key(*name));
                match fits {
                    true => Ok(Some((known, values))),
                    false => Err(self.malformed(format!("the columns are not those of {table}"))),
                }
            }
            Some(Line::End { rows, sha256 }) => {
                if rows != self.rows || sha256 != hex(so_far) {
                    return Err(self.malformed(
                        "the lines before it are not those that were written".to_owned(),
                    ));
                }
                match self.line()? {
                    None => Ok(None),
                    Some(_) => Err(self.malformed("there is more after the end".to_owned())),
                }
            }
            Some(Line::PerfagentStore { .. }) => {
                Err(self.malformed("another export begins".to_owned()))
            }
            None => Err(self.malformed("the export is not whole: its end is missing".to_owned())),
        }
    }

    /// Of the line that was read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.line
    }

    fn malformed(&self, problem: String) -> TransferError {
        malformed(self.line, problem)
    }

    fn line(&mut self) -> Result<Option<Line>, TransferError> {
        use std::io::Read;
        let mut text = Vec::new();
        self.line += 1;
        let bounded = &mut (&mut *self.from).take(LONGEST_LINE);
        if bounded.read_until(b'\n', &mut text)? == 0 {
            return Ok(None);
        }
        self.digest.update(&text);
        // the text of an error would show what the line holds
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            self.malformed(format!("it is none of an export ({:?})", error.classify()))
        })
    }
}

pub(super) fn malformed(line: u64, problem: String) -> TransferError {
    TransferError::Malformed { line, problem }
}

fn hex(digest: ring::digest::Context) -> String {
    let digest = digest.finish();
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
