//! The record that a program passed its check, which holds for the program as it was then.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// Rises when the check asks for more: who passed an older one is checked again.
const CHECK: u32 = 1;
const CHUNK_BYTES: usize = 64 << 10;

/// What a program is told by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    /// Name of the actuator.
    pub(super) name: &'a str,
    /// Program and arguments.
    pub(super) argv: &'a [String],
    /// Names of the variables that it gets.
    pub(super) env: &'a [String],
    /// How long a call may take.
    pub(super) timeout: Duration,
}

#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Record {
    /// Which check it passed.
    check: u32,
    /// SHA-256 of its configuration and of all its files.
    digest: String,
}

/// Where it is kept.
pub(super) fn record_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.json"))
}

impl Identity<'_> {
    /// Keeps that it passed, as it is now.
    pub(super) fn record(&self, directory: &Path) -> io::Result<PathBuf> {
        let record = Record {
            check: CHECK,
            digest: self.digest()?,
        };
        let path = record_path(directory, self.name);
        // private from the start, and never half written
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&mut file, &record)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(path)
    }

    /// Why it has not passed as it is now; none where it has.
    pub(super) async fn not_passed(&self, record: &Path) -> Option<String> {
        let (argv, env) = (self.argv.to_vec(), self.env.to_vec());
        let (name, timeout) = (self.name.to_owned(), self.timeout);
        let record = record.to_owned();
        let looked = tokio::task::spawn_blocking(move || {
            let identity = Identity {
                name: &name,
                argv: &argv,
                env: &env,
                timeout,
            };
            identity.not_passed_by(&record)
        });
        looked.await.unwrap_or_else(|error| Some(error.to_string()))
    }

    fn not_passed_by(&self, record: &Path) -> Option<String> {
        let kept = match std::fs::read(record) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some("it has not passed its check".to_owned());
            }
            Err(error) => return Some(format!("{} cannot be read: {error}", record.display())),
        };
        let Ok(kept) = serde_json::from_slice::<Record>(&kept) else {
            return Some(format!("{} is no record of a check", record.display()));
        };
        let digest = match self.digest() {
            Ok(digest) => digest,
            Err(error) => return Some(format!("it cannot be read: {error}")),
        };
        let now = Record {
            check: CHECK,
            digest,
        };
        (kept != now).then(|| {
            "it is not as it was when it passed its check, or the check is newer".to_owned()
        })
    }

    /// SHA-256 of its configuration, and of each file that its words name: program and scripts.
    fn digest(&self) -> io::Result<String> {
        let mut digest = Context::new(&SHA256);
        let mut part = |text: &str| {
            digest.update(&text.len().to_be_bytes());
            digest.update(text.as_bytes());
        };
        part(self.name);
        part(&self.argv.len().to_string());
        for text in self.argv.iter().chain(self.env) {
            part(text);
        }
        part(&self.timeout.as_nanos().to_string());
        let mut chunk = vec![0; CHUNK_BYTES];
        for (at, word) in self.argv.iter().enumerate() {
            let path = Path::new(word);
            if at > 0 && !(path.is_absolute() && path.is_file()) {
                continue;
            }
            let mut file = std::fs::File::open(path)?;
            digest.update(&at.to_be_bytes());
            loop {
                match file.read(&mut chunk)? {
                    0 => break,
                    count => digest.update(chunk.get(..count).unwrap_or_default()),
                }
            }
        }
        Ok(crate::units::hex(digest.finish().as_ref()))
    }
}
