//! All rows of all tables, out and in.

use std::io::{BufRead, Write as TextWrite};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::TryStreamExt;
use serde_json::{Map, Number, Value};
use sqlx::{AssertSqlSafe, Row};

use super::{Backend, DbConnection, DbRow, Write, commit, query, trouble, unsigned};
use crate::store::StoreError;
use crate::store::migrate::newest;
use crate::store::transfer::{
    Kind, LinesIn, LinesOut, TABLES, Table, TransferError, TransferStore, Transferred, malformed,
};

#[async_trait]
impl TransferStore for Backend {
    async fn export(&self, to: &mut (dyn TextWrite + Send)) -> Result<Transferred, TransferError> {
        let schema = newest(&super::super::MIGRATIONS);
        let mut view = self.long_view().await?;
        let mut out = LinesOut::begin(to, schema)?;
        let mut counts = Vec::with_capacity(TABLES.len());
        for table in &TABLES {
            let mut count = 0;
            let text = format!(
                "SELECT {} FROM {} ORDER BY {}",
                names(table),
                table.name,
                table.order
            );
            let mut rows = query(AssertSqlSafe(text)).fetch(&mut *view);
            while let Some(row) = rows.try_next().await.map_err(trouble)? {
                out.row(table, values_of(table, &row)?)?;
                count += 1;
            }
            counts.push((table.name, count));
        }
        out.end()?;
        Ok(Transferred {
            schema,
            rows: counts,
        })
    }

    async fn import(&self, from: &mut (dyn BufRead + Send)) -> Result<Transferred, TransferError> {
        let schema = newest(&super::super::MIGRATIONS);
        let mut lines = LinesIn::begin(from, schema)?;
        let mut write = self.begin().await?;
        refuse_used(&mut write).await?;
        let mut counts: Vec<(&'static str, u64)> =
            TABLES.iter().map(|table| (table.name, 0)).collect();
        while let Some((table, values)) = lines.row()? {
            if let Some((_, count)) = counts.iter_mut().find(|(name, _)| *name == table.name) {
                *count += 1;
            }
            insert(&mut write, table, &values, lines.number()).await?;
        }
        let after: [&'static str; _] = super::super::AFTER_IMPORT;
        for statement in after {
            query(statement)
                .execute(&mut *write)
                .await
                .map_err(trouble)?;
        }
        commit(write).await?;
        Ok(Transferred {
            schema,
            rows: counts,
        })
    }

    async fn rows(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let mut view = self.long_view().await?;
        let mut counts = Vec::with_capacity(TABLES.len());
        for table in &TABLES {
            counts.push((table.name, count(&mut view, table).await?));
        }
        Ok(counts)
    }
}

async fn count(view: &mut DbConnection, table: &Table) -> Result<u64, StoreError> {
    let text = format!("SELECT count(*) AS there FROM {}", table.name);
    let row = query(AssertSqlSafe(text))
        .fetch_one(view)
        .await
        .map_err(trouble)?;
    unsigned(&row, "there")
}

/// What was there would be mixed with what comes.
async fn refuse_used(write: &mut Write) -> Result<(), TransferError> {
    for table in TABLES.iter().filter(|table| !table.is_counter) {
        if count(write, table).await? > 0 {
            return Err(TransferError::NotEmpty(table.name));
        }
    }
    for table in TABLES.iter().filter(|table| table.is_counter) {
        let text = format!("SELECT revision FROM {}", table.name);
        let row = query(AssertSqlSafe(text))
            .fetch_one(&mut **write)
            .await
            .map_err(trouble)?;
        if unsigned(&row, "revision")? > 0 {
            return Err(TransferError::NotEmpty(table.name));
        }
        // its own row comes
        let clear = format!("DELETE FROM {}", table.name);
        query(AssertSqlSafe(clear))
            .execute(&mut **write)
            .await
            .map_err(trouble)?;
    }
    Ok(())
}

fn names(table: &Table) -> String {
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

fn values_of(table: &Table, row: &DbRow) -> Result<Map<String, Value>, StoreError> {
    let value = |(name, kind): &(&'static str, Kind)| {
        let value = match kind {
            Kind::Text => row.try_get::<Option<String>, _>(*name).map(Value::from),
            Kind::Integer => row.try_get::<Option<i64>, _>(*name).map(Value::from),
            Kind::Real => row.try_get::<Option<f64>, _>(*name).map(|real| {
                real.and_then(Number::from_f64)
                    .map_or(Value::Null, Value::Number)
            }),
            Kind::Bytes => row
                .try_get::<Option<Vec<u8>>, _>(*name)
                .map(|bytes| Value::from(bytes.map(|bytes| BASE64_STANDARD.encode(bytes)))),
        };
        Ok(((*name).to_owned(), value.map_err(trouble)?))
    };
    table.columns.iter().map(value).collect()
}

async fn insert(
    write: &mut Write,
    table: &Table,
    values: &Map<String, Value>,
    line: u64,
) -> Result<(), TransferError> {
    let places: Vec<String> = (1..=table.columns.len()).map(|n| format!("${n}")).collect();
    let text = format!(
        "INSERT INTO {} ({}) VALUES ({})",
        table.name,
        names(table),
        places.join(", ")
    );
    let mut insert = query(AssertSqlSafe(text));
    for (name, kind) in table.columns {
        let wrong = || {
            malformed(
                line,
                format!("{}: {name} is not what it should be", table.name),
            )
        };
        let value = values.get(*name).filter(|value| !value.is_null());
        insert = match kind {
            Kind::Text => insert.bind(
                value
                    .map(|value| value.as_str().ok_or_else(wrong).map(str::to_owned))
                    .transpose()?,
            ),
            Kind::Integer => insert.bind(
                value
                    .map(|value| value.as_i64().ok_or_else(wrong))
                    .transpose()?,
            ),
            Kind::Real => insert.bind(
                value
                    .map(|value| value.as_f64().ok_or_else(wrong))
                    .transpose()?,
            ),
            Kind::Bytes => {
                let bytes = value.map(|value| {
                    let text = value.as_str().ok_or_else(wrong)?;
                    BASE64_STANDARD.decode(text).map_err(|_| wrong())
                });
                insert.bind(bytes.transpose()?)
            }
        };
    }
    match insert.execute(&mut **write).await {
        Ok(_) => Ok(()),
        // a row that breaks a rule of its table is the text's fault
        Err(sqlx::Error::Database(error)) if error.kind() != sqlx::error::ErrorKind::Other => {
            Err(malformed(
                line,
                format!("{}: the row breaks a rule of its table", table.name),
            ))
        }
        Err(error) => Err(TransferError::Store(trouble(error))),
    }
}
