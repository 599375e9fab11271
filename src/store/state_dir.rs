//! The directory that holds an agent's state: its own, private, and used by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::OpenError;

/// A directory that this process holds. Released when dropped, or when the process ends, however it does.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

const LOCK: &str = "lock";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// What a lock file may say of its holder.
const HOLDER_BYTES: u64 = 200;

impl StateDir {
    /// Creates the directory if there is none, and takes it.
    ///
    /// # Errors
    /// A directory that cannot be made or used; one that another process holds.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory {
            path: path.to_owned(),
            source,
        };
        let existed = path.exists();
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(failed)?;
        if existed && !is_ours(path).map_err(failed)? {
            let path = path.to_owned();
            return Err(OpenError::Foreign { path });
        }
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            // it may hold what only this user may read
            let private = fs::Permissions::from_mode(DIRECTORY_MODE);
            fs::set_permissions(path, private).map_err(failed)?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                    holder: holder(&mut lock),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let pid = format!("process {}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(pid.as_bytes()))
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// A file in it, private and made if it is not there.
    ///
    /// # Errors
    /// A file that cannot be made.
    pub fn file(&self, name: &str) -> Result<PathBuf, OpenError> {
        let path = self.path.join(name);
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|source| OpenError::Directory {
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }
}

/// Whether a directory is empty or holds the state of an agent: nobody else's is made private.
fn is_ours(path: &Path) -> std::io::Result<bool> {
    let is_empty = fs::read_dir(path)?.next().is_none();
    Ok(is_empty || path.join(LOCK).exists())
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(HOLDER_BYTES).read_to_string(&mut text);
    match (read, text.trim()) {
        (Ok(_), said) if !said.is_empty() => said.to_owned(),
        _ => "another process".to_owned(),
    }
}

/// `$XDG_STATE_HOME/perfagent`, else `$HOME/.local/state/perfagent`.
///
/// # Errors
/// Neither variable is set.
pub fn default_state_dir(variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf, OpenError> {
    // a relative path in either would mean another directory in each working directory
    let absolute = |name: &str| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|base| base.join("perfagent"))
        .ok_or(OpenError::NoDirectory)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_private_and_held_by_one() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/b");
        let held = StateDir::take(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("lock")), 0o600);
        assert_eq!(mode(&held.file("x").unwrap()), 0o600);
        let refused = StateDir::take(&path).unwrap_err().to_string();
        let pid = format!("in use by process {}", std::process::id());
        assert!(refused.contains(&pid), "{refused}");
        drop(held);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let _held = StateDir::take(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_directory_of_others_is_left_alone() {
        let shared = tempfile::tempdir().unwrap();
        fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(shared.path().join("theirs"), "").unwrap();
        let refused = StateDir::take(shared.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
        let mode = fs::metadata(shared.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);
    }

    #[test]
    fn the_default_is_where_state_belongs() {
        let with = |known: &'static [(&str, &str)]| {
            default_state_dir(move |name| {
                let found = known.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(
            with(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]).unwrap(),
            path("/s/perfagent")
        );
        assert_eq!(
            with(&[("XDG_STATE_HOME", "s"), ("HOME", "/h")]).unwrap(),
            path("/h/.local/state/perfagent")
        );
        assert!(matches!(with(&[]), Err(OpenError::NoDirectory)));
    }
}
