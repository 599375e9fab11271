//! `perfagent token`: who may call an agent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::terminal::{note, print};
use super::{ConfigSource, Failure, Outcome};
use crate::auth::edit::{EditError, add, remove};
use crate::auth::{Digest, Identity, Proof, Role, Token};
use crate::edge::files::{read_credentials, read_text};
use crate::edge::grpc::tls::certificates;

/// What can be done with credentials. A running agent sees a change within about a second.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print it, this once: the file keeps only its digest
    Create {
        #[command(flatten)]
        identity: IdentityArgs,
        #[command(flatten)]
        file: FileArgs,
    },
    /// Let the owner of a client certificate call; the agent needs server.tls_client_ca
    AddCertificate {
        #[command(flatten)]
        identity: IdentityArgs,
        /// The client's certificate (PEM)
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        #[command(flatten)]
        file: FileArgs,
    },
    /// Show whose credentials there are; tokens themselves are not kept
    List {
        #[command(flatten)]
        file: FileArgs,
    },
    /// Take a principal's credentials away
    Revoke {
        /// Whose
        name: String,
        /// Only the credential with this id, as `list` shows it
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        #[command(flatten)]
        file: FileArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// Who will use it: the principal in logs. One with a credential already gets a second one
    #[arg(long)]
    name: String,
    /// viewer (looks), operator (also registers instances and measures by URL), approver (looks and approves changes)
    /// or admin (everything)
    #[arg(long, value_name = "ROLE")]
    role: Role,
}

impl IdentityArgs {
    fn identity(&self) -> Identity {
        Identity {
            principal: self.name.clone(),
            role: self.role,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// Credentials file [default: auth.credentials_file of the configuration]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    source: ConfigSource,
}

pub(super) fn run(command: &TokenCommand) -> Outcome {
    let done = match command {
        TokenCommand::Create { identity, file } => create(&identity.identity(), file),
        TokenCommand::AddCertificate {
            identity,
            cert,
            file,
        } => add_certificate(&identity.identity(), cert, file),
        TokenCommand::List { file } => list(file),
        TokenCommand::Revoke { name, id, file } => revoke(name, id.as_deref(), file),
    };
    match done {
        Ok(()) => Outcome::Done,
        Err(failure) => failure.told(),
    }
}

fn create(identity: &Identity, file: &FileArgs) -> Result<(), Failure> {
    let path = file.path()?;
    let token = Token::generate().map_err(failed)?;
    change(&path, |text| {
        add(text, identity, Proof::Token(token.digest()))
    })?;
    print(&format!("{}\n", token.expose()));
    let Identity { principal, role } = identity;
    let path = path.display();
    note(
        "note",
        &format!("{principal} is {role} in {path}; the token is not shown again"),
    );
    Ok(())
}

fn add_certificate(identity: &Identity, cert: &Path, file: &FileArgs) -> Result<(), Failure> {
    let path = file.path()?;
    let chain = certificates(cert).map_err(failed)?;
    // the first is the client's own, those after it signed it
    let Some(leaf) = chain.first() else {
        return Ok(());
    };
    let proof = Proof::Certificate(Digest::of(leaf));
    change(&path, |text| add(text, identity, proof))
}

fn list(file: &FileArgs) -> Result<(), Failure> {
    let credentials = read_credentials(&file.path()?).map_err(failed)?;
    let mut rows = vec![["PRINCIPAL", "ROLE", "KIND", "ID"].map(str::to_owned)];
    for entry in credentials.entries() {
        let (kind, digest) = match entry.proof {
            Proof::Token(digest) => ("token", digest),
            Proof::Certificate(digest) => ("certificate", digest),
        };
        let Identity { principal, role } = &entry.identity;
        let row = [principal, role.as_str(), kind, &digest.short_hex()];
        rows.push(row.map(str::to_owned));
    }
    let width = rows.iter().map(|[name, ..]| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows
        .iter()
        .map(|[name, role, kind, id]| format!("{name:width$}  {role:8}  {kind:11}  {id}\n"))
        .collect();
    print(&lines.concat());
    Ok(())
}

fn revoke(name: &str, id: Option<&str>, file: &FileArgs) -> Result<(), Failure> {
    let mut count = 0;
    change(&file.path()?, |text| {
        let (text, removed) = remove(text, name, id)?;
        count = removed;
        Ok(text)
    })?;
    let plural = if count == 1 { "" } else { "s" };
    note(
        "note",
        &format!("{count} credential{plural} of {name} revoked"),
    );
    Ok(())
}

impl FileArgs {
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.file {
            return Ok(path.clone());
        }
        let config = self
            .source
            .load()
            .map_err(|error| Failure::new(Outcome::Usage, error.to_string(), None))?;
        config.auth.credentials_file.ok_or_else(|| {
            Failure::new(
                Outcome::Usage,
                "which credentials file?",
                Some("give --file, or set auth.credentials_file in the config file"),
            )
        })
    }
}

fn failed(error: impl ToString) -> Failure {
    Failure::new(Outcome::Failed, error.to_string(), None)
}

/// Replaces the file as a whole, so that an agent never reads half of it. A new one is for its owner only; one that
/// is there keeps its owner and mode, so that the agent's user can still read it.
fn change(
    path: &Path,
    edit: impl FnOnce(&str) -> Result<String, EditError>,
) -> Result<(), Failure> {
    let told = |error: io::Error| failed(format!("cannot write {}: {error}", path.display()));
    // a link is kept, and what it points to replaced
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(format!("{} is no file", path.display())));
    };
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    // two commands at once would lose what one of them wrote
    let directory_handle = File::open(directory).map_err(told)?;
    directory_handle.lock().map_err(told)?;
    let before = fs::metadata(&path).ok();
    let text = match before {
        Some(_) => read_text(&path).map_err(failed)?,
        None => String::new(),
    };
    let changed = edit(&text).map_err(|error| {
        let hint =
            matches!(error, EditError::Nothing).then_some("`perfagent token list` shows them");
        Failure::new(
            Outcome::Failed,
            format!("{}: {error}", path.display()),
            hint,
        )
    })?;
    let beside = directory.join(format!(
        ".{}.{}.new",
        name.to_string_lossy(),
        std::process::id()
    ));
    let written = write_beside(&beside, &changed, before.as_ref())
        .and_then(|()| fs::rename(&beside, &path))
        .and_then(|()| directory_handle.sync_all());
    written.map_err(|error| {
        // it may not even have been made
        let _ = fs::remove_file(&beside);
        told(error)
    })
}

fn write_beside(path: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    if let Some(like) = like {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
            chown(path, Some(like.uid()), Some(like.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
