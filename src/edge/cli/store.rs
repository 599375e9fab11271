//! `perfagent store`

use std::fs::OpenOptions;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::collect::Output;
use super::terminal::print;
use super::{ConfigSource, Failure, Outcome};
use crate::config::{Config, PostgresOptions};
use crate::store::{
    OpenError, Opening, PostgresStore, SqliteStore, StateDir, Store, Transferred,
    default_state_dir, read_all,
};

/// What can be done with stores.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Make or upgrade the schema, as `perfagent serve` does when it starts
    Migrate {
        #[command(flatten)]
        which: WhichStore,
        /// What to print
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// See whether a store can be reached, is of this version's schema, and can be read to its end; changes nothing
    Check {
        #[command(flatten)]
        which: WhichStore,
        /// What to print
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Write all that a store holds into a file, as it is at one time. It holds settings and secrets
    Export {
        #[command(flatten)]
        which: WhichStore,
        /// File to write, which must not be there yet; - is standard output
        file: PathBuf,
    },
    /// Read what `export` wrote into a new and empty store: all of it, or nothing
    #[command(after_help = MOVING)]
    Import {
        #[command(flatten)]
        which: WhichStore,
        /// File to read; - is standard input
        file: PathBuf,
    },
}

const MOVING: &str = "An embedded store moves to PostgreSQL while no agent runs on either:

  perfagent store export store.jsonl
  perfagent store import store.jsonl --store-url postgres://agent@db.example/perfagent
  rm store.jsonl      # it holds secrets";

/// Which store; without flags that of the config file.
#[derive(Debug, Args)]
pub(super) struct WhichStore {
    #[command(flatten)]
    source: ConfigSource,
    /// State directory of an embedded store [default: as for `perfagent serve`]
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "store_url")]
    state_dir: Option<PathBuf>,
    /// URL of a PostgreSQL: postgres://user@host:5432/database, without a password
    #[arg(long, value_name = "URL")]
    store_url: Option<String>,
    /// File with the password for it
    #[arg(long, value_name = "FILE")]
    store_password_file: Option<PathBuf>,
}

/// A store with what goes with it on this machine.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    pub(super) state_dir: PathBuf,
    /// With a store that is shared there is a directory beside it, for one agent.
    _directory: Option<StateDir>,
}

/// Opens the store that a configuration names, upgrading it.
pub(super) async fn open(config: &Config) -> Result<Opened, OpenError> {
    let state_dir = match &config.store.state_dir {
        Some(path) => path.clone(),
        None => default_state_dir(|name| std::env::var(name).ok())?,
    };
    Ok(match config.store.postgres() {
        Some(options) => Opened {
            _directory: Some(StateDir::take(&state_dir)?),
            store: Arc::new(PostgresStore::open(&options).await?),
            state_dir,
        },
        None => Opened {
            store: Arc::new(SqliteStore::open(&state_dir).await?),
            state_dir,
            _directory: None,
        },
    })
}

pub(super) async fn run(command: StoreCommand) -> Outcome {
    let done = match command {
        StoreCommand::Migrate { which, output } => migrate(which, output).await,
        StoreCommand::Check { which, output } => check(which, output).await,
        StoreCommand::Export { which, file } => export(which, &file).await,
        StoreCommand::Import { which, file } => import(which, &file).await,
    };
    match done {
        Ok(()) => Outcome::Done,
        Err(failure) => failure.told(),
    }
}

async fn migrate(which: WhichStore, output: Output) -> Result<(), Failure> {
    let at = which.place()?;
    at.open(Opening::Upgrade).await?;
    let schema = crate::store::newest_schema();
    told(
        output,
        &json!({"store": at.text(), "schema": schema}),
        &format!("{} has schema {schema}", at.text()),
    );
    Ok(())
}

async fn check(which: WhichStore, output: Output) -> Result<(), Failure> {
    let at = which.place()?;
    let store = at.open(Opening::AsItIs).await?;
    let rows = store.rows().await.map_err(failed)?;
    let database = match &at {
        Place::Postgres(options) => {
            let store = PostgresStore::open_as(options, Opening::AsItIs);
            Some(
                store
                    .await
                    .map_err(failed)?
                    .server()
                    .await
                    .map_err(failed)?,
            )
        }
        Place::Embedded(_) => None,
    };
    let unreadable = read_all(&*store).await;
    let schema = crate::store::newest_schema();
    let mut text = format!("{}: schema {schema}\n", at.text());
    if let Some(server) = &database {
        text += &format!(
            "  PostgreSQL {}, {}, a round trip takes {:.1} ms, its clock is {:+.3} s from this one\n",
            server.version,
            if server.is_encrypted { "TLS" } else { "no TLS" },
            server.round_trip_seconds * 1e3,
            server.clock_ahead_seconds,
        );
    }
    for (table, count) in rows.iter().filter(|(_, count)| *count > 0) {
        text += &format!("  {count:>9} {table}\n");
    }
    for problem in &unreadable {
        text += &format!("  unreadable: {problem}\n");
    }
    let rows: serde_json::Map<_, _> = rows
        .into_iter()
        .map(|(table, count)| (table.to_owned(), json!(count)))
        .collect();
    told(
        output,
        &json!({
            "store": at.text(), "schema": schema, "server": database, "rows": rows, "unreadable": unreadable,
        }),
        text.trim_end(),
    );
    match unreadable.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            Outcome::Failed,
            "this version cannot read all that the store holds",
            Some("a later version may have written it: run that one, or one that is newer"),
        )),
    }
}

async fn export(which: WhichStore, file: &Path) -> Result<(), Failure> {
    let at = which.place()?;
    let store = at.open(Opening::Upgrade).await?;
    if file == Path::new("-") {
        let mut out = BufWriter::new(std::io::stdout());
        store.export(&mut out).await.map_err(failed)?;
        return Ok(());
    }
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    let created = created.map_err(|error| {
        let text = format!("cannot write {}: {error}", file.display());
        Failure::new(Outcome::Failed, text, None)
    })?;
    let mut out = BufWriter::new(created);
    let exported = store.export(&mut out).await;
    let on_disk = out.flush().and_then(|()| out.get_ref().sync_all());
    let exported = exported.and_then(|exported| Ok(on_disk.map(|()| exported)?));
    match exported {
        Ok(exported) => {
            let text = format!("exported {} to {}", counted(&exported), file.display());
            print(&format!("{text}\n"));
            Ok(())
        }
        Err(error) => {
            // half of one is of no use
            let _ = std::fs::remove_file(file);
            Err(failed(error))
        }
    }
}

async fn import(which: WhichStore, file: &Path) -> Result<(), Failure> {
    let at = which.place()?;
    let store = at.open(Opening::Upgrade).await?;
    let imported = if file == Path::new("-") {
        store.import(&mut BufReader::new(std::io::stdin())).await
    } else {
        let opened = std::fs::File::open(file).map_err(|error| {
            let text = format!("cannot read {}: {error}", file.display());
            Failure::new(Outcome::Failed, text, None)
        })?;
        store.import(&mut BufReader::new(opened)).await
    };
    let imported = imported.map_err(failed)?;
    print(&format!(
        "imported {} into {}\n",
        counted(&imported),
        at.text()
    ));
    Ok(())
}

fn counted(moved: &Transferred) -> String {
    let of = |wanted: &str| {
        let found = moved.rows.iter().find(|(table, _)| *table == wanted);
        found.map_or(0, |(_, count)| *count)
    };
    let all: u64 = moved.rows.iter().map(|(_, count)| count).sum();
    format!(
        "{all} rows ({} instances, {} workflows, {} events, {} webhooks)",
        of("instances"),
        of("workflows"),
        of("workflow_events"),
        of("webhooks")
    )
}

fn told(output: Output, json: &serde_json::Value, text: &str) {
    match output {
        Output::Json => print(&format!("{json:#}\n")),
        Output::Table => print(&format!("{text}\n")),
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Outcome::Failed, error.to_string(), None)
}

/// Where a store is.
enum Place {
    Embedded(PathBuf),
    Postgres(PostgresOptions),
}

impl WhichStore {
    fn place(self) -> Result<Place, Failure> {
        let usage =
            |error: &dyn std::fmt::Display| Failure::new(Outcome::Usage, error.to_string(), None);
        let mut config = self.source.load().map_err(|error| usage(&error))?;
        if self.store_url.is_some() || self.state_dir.is_some() {
            config.store.url = self.store_url;
            config.store.password_file = None;
            config.store.listen_url = None;
        }
        config.store.state_dir = self.state_dir.or(config.store.state_dir);
        config.store.password_file = self.store_password_file.or(config.store.password_file);
        config.check().map_err(|error| usage(&error))?;
        if let Some(options) = config.store.postgres() {
            return Ok(Place::Postgres(options));
        }
        match config.store.state_dir {
            Some(path) => Ok(Place::Embedded(path)),
            None => default_state_dir(|name| std::env::var(name).ok())
                .map(Place::Embedded)
                .map_err(|error| usage(&error)),
        }
    }
}

impl Place {
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Store>, Failure> {
        let opened: Result<Arc<dyn Store>, OpenError> = match self {
            Self::Embedded(path) => SqliteStore::open_as(path, opening)
                .await
                .map(|store| Arc::new(store) as _),
            Self::Postgres(options) => PostgresStore::open_as(options, opening)
                .await
                .map(|store| Arc::new(store) as _),
        };
        opened.map_err(failed)
    }

    fn text(&self) -> String {
        match self {
            Self::Embedded(path) => path.display().to_string(),
            Self::Postgres(options) => options.place(),
        }
    }
}
