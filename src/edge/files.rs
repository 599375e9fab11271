//! Files that the agent's safety rests on: read within bounds, and read again when they change.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::auth::{BadCredentials, Credentials};

/// A file that cannot be used. Does not show what it holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the credentials file.
    #[error("{}: {source}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Which, and what is wrong with it.
        source: BadCredentials,
    },
    /// Certificates or a key.
    #[error("{}: {problem}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// Bytes that such a file may have.
const MAX_BYTES: u64 = 4 << 20;

/// The bytes of a file.
///
/// # Errors
/// One that cannot be read, or is larger than such files are.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            let text = format!("more than {MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(bytes)
    };
    read().map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The text of a file.
///
/// # Errors
/// As [`read`]; bytes that are no UTF-8.
pub(super) fn read_text(path: &Path) -> Result<String, FileError> {
    String::from_utf8(read(path)?).map_err(|_| FileError::Read {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"),
    })
}

/// The credentials of a file.
///
/// # Errors
/// As [`read`]; a line that cannot be used.
pub(super) fn read_credentials(path: &Path) -> Result<Credentials, FileError> {
    Credentials::parse(&read_text(path)?).map_err(|source| FileError::Credentials {
        path: path.to_owned(),
        source,
    })
}

/// Whether everybody on this machine can read or change the file.
pub(super) fn is_open_to_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|known| known.permissions().mode() & 0o007 != 0)
}

/// What was made of files, and is made again when they change.
#[derive(Debug)]
pub(super) struct Reloaded<T> {
    current: watch::Receiver<Arc<T>>,
    watching: JoinHandle<()>,
}

/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Loads now, and again when one of the files has changed. What cannot be loaded again is logged, and the last
    /// that could be stays in force.
    ///
    /// # Errors
    /// Files that cannot be loaded at the beginning.
    pub(super) fn start(
        what: &'static str,
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        // before the files are read: a change in between is then seen as one
        let mut seen = stamps(&paths);
        let (fresh, current) = watch::channel(Arc::new(load()?));
        let (paths, load) = (Arc::new(paths), Arc::new(load));
        let watching = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_INTERVAL).await;
                let (paths, load, last) = (paths.clone(), load.clone(), seen.clone());
                let looked = tokio::task::spawn_blocking(move || {
                    let now = stamps(&paths);
                    let loaded = (now != last).then(|| load());
                    (now, loaded)
                });
                // it is cancelled only when the agent ends
                let Ok((now, loaded)) = looked.await else {
                    return;
                };
                seen = now;
                match loaded {
                    Some(Ok(loaded)) => {
                        // the receiver lives as long as this task
                        let _ = fresh.send(Arc::new(loaded));
                        tracing::info!("{what}: read again");
                    }
                    Some(Err(error)) => {
                        tracing::error!(
                            "{what}: the last that could be read stays in force: {error}"
                        );
                    }
                    None => {}
                }
            }
        });
        Ok(Self { current, watching })
    }

    /// What is in force.
    pub(super) fn current(&self) -> Arc<T> {
        self.current.borrow().clone()
    }

    /// The same and whatever comes after it.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<T>> {
        self.current.clone()
    }
}

impl<T> Drop for Reloaded<T> {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// By what a changed file is told from an unchanged one, be it replaced, rewritten, or a link to another now.
type Stamp = Option<(u64, u64, u64, [i64; 4])>;

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let known = fs::metadata(path).ok()?;
        let times = [
            known.mtime(),
            known.mtime_nsec(),
            known.ctime(),
            known.ctime_nsec(),
        ];
        Some((known.dev(), known.ino(), known.len(), times))
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn until(condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_read_again_leaves_the_last_in_force() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let line = |name: &str| format!("{name} viewer sha256:{}\n", "0".repeat(64));
        fs::write(&path, line("first")).unwrap();
        let loads = Arc::new(AtomicUsize::new(0));
        let reloaded = {
            let (path, loads) = (path.clone(), loads.clone());
            Reloaded::start("credentials file", vec![path.clone()], move || {
                loads.fetch_add(1, Ordering::SeqCst);
                read_credentials(&path)
            })
            .unwrap()
        };
        let principal = || {
            let current = reloaded.current();
            current
                .entries()
                .first()
                .unwrap()
                .identity
                .principal
                .clone()
        };
        // broken, then gone, then good again
        fs::write(&path, "first root\n").unwrap();
        until(|| loads.load(Ordering::SeqCst) == 2).await;
        assert_eq!(principal(), "first");
        fs::remove_file(&path).unwrap();
        until(|| loads.load(Ordering::SeqCst) == 3).await;
        assert_eq!(principal(), "first");
        fs::write(&path, line("other")).unwrap();
        until(|| principal() == "other").await;
        // what has not changed is not read: nothing but the change of a time is enough
        let before = loads.load(Ordering::SeqCst);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        until(|| loads.load(Ordering::SeqCst) == before + 1).await;
    }

    #[test]
    fn errors_name_the_file_and_show_nothing_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .starts_with("cannot read /")
        );
        fs::write(&path, "ann viewer pa_secret\n").unwrap();
        let shown = read_credentials(&path).unwrap_err().to_string();
        assert!(shown.contains("credentials: line 1: "), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
        fs::write(&path, [0xff]).unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("UTF-8"));
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("more than"));
    }
}
