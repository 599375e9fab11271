//! The schema, step by step; a file of a newer version is refused.

use std::path::Path;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqlitePool;

use crate::store::OpenError;

const MIGRATIONS: [(i64, &str, &str); 5] = [
    (
        1,
        "instances",
        include_str!("../migrations/1_instances.sql"),
    ),
    (2, "slos", include_str!("../migrations/2_slos.sql")),
    (
        3,
        "predictions",
        include_str!("../migrations/3_predictions.sql"),
    ),
    (
        4,
        "workflows",
        include_str!("../migrations/4_workflows.sql"),
    ),
    (5, "webhooks", include_str!("../migrations/5_webhooks.sql")),
];

/// Brings the schema up to what this version knows.
pub(super) async fn migrate(pool: &SqlitePool, file: &Path) -> Result<(), OpenError> {
    let failed = |message: String| OpenError::Database {
        path: file.to_owned(),
        message,
    };
    let migrations: Vec<Migration> = MIGRATIONS
        .into_iter()
        .map(|(version, name, sql)| {
            let kind = MigrationType::Simple;
            Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
        })
        .collect();
    let known = MIGRATIONS
        .iter()
        .map(|(version, _, _)| *version)
        .max()
        .unwrap_or(0);
    let migrator = Migrator::with_migrations(migrations);
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error.to_string()))?;
    let connection: &mut sqlx::SqliteConnection = &mut connection;
    connection
        .ensure_migrations_table(&migrator.table_name)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let applied = connection
        .list_applied_migrations(&migrator.table_name)
        .await;
    let applied = applied.map_err(|error| failed(error.to_string()))?;
    let newest = applied
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0);
    if newest > known {
        return Err(OpenError::Newer {
            path: file.to_owned(),
            found: newest,
            known,
        });
    }
    migrator
        .run_direct(None, connection, false)
        .await
        .map_err(|error| match error {
            MigrateError::VersionMismatch(version) => failed(format!(
                "its schema {version} is not the one of this version; it was changed by hand"
            )),
            other => failed(other.to_string()),
        })
}
