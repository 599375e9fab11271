//! The schema, step by step; one of a newer version is refused.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

use super::{OpenError, Opening};

/// Number, name and SQL of a step. What has been released is never changed.
pub(super) type Step = (i64, &'static str, &'static str);

/// Brings the schema up to what this version knows, or sees to it that it is. `place` is shown with errors. The caller sees to
/// it that nobody else does so at the same time.
pub(super) async fn migrate<C: Migrate>(
    connection: &mut C,
    steps: &[Step],
    opening: Opening,
    place: &str,
) -> Result<(), OpenError> {
    let failed = |error: MigrateError| failed(error, place);
    let migrator = migrator(steps);
    connection
        .ensure_migrations_table(&migrator.table_name)
        .await
        .map_err(failed)?;
    let (found, known) = (found(connection, steps, place).await?, newest(steps));
    if found > known {
        return Err(OpenError::Newer {
            place: place.to_owned(),
            found,
            known,
        });
    }
    if found < known && opening == Opening::AsItIs {
        return Err(OpenError::Older {
            place: place.to_owned(),
            found,
            known,
        });
    }
    let applied = migrator.run_direct(None, connection, false).await;
    applied.map_err(failed)
}

/// The newest step that was taken; 0 where there is no schema.
async fn found<C: Migrate>(
    connection: &mut C,
    steps: &[Step],
    place: &str,
) -> Result<i64, OpenError> {
    let applied = connection
        .list_applied_migrations(&migrator(steps).table_name)
        .await
        .map_err(|error| failed(error, place))?;
    let versions = applied.iter().map(|migration| migration.version);
    Ok(versions.max().unwrap_or(0))
}

/// The newest step that this version knows.
pub(super) fn newest(steps: &[Step]) -> i64 {
    steps
        .iter()
        .map(|(version, _, _)| *version)
        .max()
        .unwrap_or(0)
}

fn migrator(steps: &[Step]) -> Migrator {
    let migrations = steps.iter().map(|(version, name, sql)| {
        let kind = MigrationType::Simple;
        Migration::new(*version, (*name).into(), kind, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // each backend has a lock of its own
    migrator.set_locking(false);
    migrator
}

fn failed(error: MigrateError, place: &str) -> OpenError {
    let message = match error {
        MigrateError::VersionMismatch(version) => {
            format!("its schema {version} is not the one of this version; it was changed by hand")
        }
        other => other.to_string(),
    };
    OpenError::Database {
        place: place.to_owned(),
        message,
    }
}
