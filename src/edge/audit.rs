//! The audit log: one line of JSON for each call that changes something or wanted to, in a file of its own.
//!
//! Lines are written by a thread, in the order of the calls' ends, and are on disk a moment after the answer. At
//! 32 MiB the file becomes `audit.jsonl.1`, that one `.2`, and so on; the fourth goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use serde::Serialize;

/// What is written of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct AuditRecord {
    /// When the call ended, as RFC 3339.
    pub(crate) time: String,
    /// Who called; none where nobody was recognised.
    pub(crate) principal: Option<String>,
    /// From where.
    pub(crate) peer: Option<String>,
    /// What was called.
    pub(crate) method: String,
    /// Of what, as far as the call came to it.
    pub(crate) resource: Option<String>,
    /// Id of the call.
    pub(crate) request_id: String,
    /// The trace that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    /// Status code of what became of it.
    pub(crate) outcome: &'static str,
    /// Status code that it was answered with, where that is another: the caller was gone before it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answered: Option<&'static str>,
}

/// The record of a call that goes on. It is kept when the call and what it set going have both ended.
#[derive(Debug)]
pub(crate) struct OpenRecord {
    log: Arc<AuditLog>,
    record: Mutex<Option<AuditRecord>>,
    done: OnceLock<&'static str>,
}

impl OpenRecord {
    pub(crate) fn new(log: Arc<AuditLog>) -> Self {
        Self {
            log,
            record: Mutex::new(None),
            done: OnceLock::new(),
        }
    }

    /// The call was answered.
    pub(crate) fn answered(&self, record: AuditRecord) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(record);
    }

    /// What it set going came to this.
    pub(crate) fn done(&self, outcome: &'static str) {
        // one call sets one thing going
        let _ = self.done.set(outcome);
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        let record = self
            .record
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut record) = record else { return };
        if let Some(done) = self.done.get().filter(|done| **done != record.outcome) {
            record.answered = Some(record.outcome);
            record.outcome = done;
        }
        self.log.record(record);
    }
}

/// Where the records go.
#[derive(Debug)]
pub struct AuditLog {
    sender: Option<SyncSender<AuditRecord>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// The file in the state directory.
pub const FILE: &str = "audit.jsonl";
/// Size at which a new file is begun.
const MAX_BYTES: u64 = 32 << 20;
/// Records that may wait for the disk.
const WAITING: usize = 4_096;
const FILE_MODE: u32 = 0o600;

impl AuditLog {
    /// Appends to the file in this directory.
    ///
    /// # Errors
    /// A file that cannot be opened, or no thread for it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Self::with_limit(directory, MAX_BYTES)
    }

    fn with_limit(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        let path = directory.join(FILE);
        let file = Target::open(path, max_bytes)?;
        let (sender, receiver) = sync_channel(WAITING);
        let builder = std::thread::Builder::new().name("audit".to_owned());
        let writer = builder.spawn(move || file.write_all(&receiver))?;
        Ok(Self {
            sender: Some(sender),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Keeps a record. Where the disk does not follow, it is in the agent's log only.
    pub(crate) fn record(&self, record: AuditRecord) {
        let Some(sender) = &self.sender else { return };
        if let Err(TrySendError::Full(record) | TrySendError::Disconnected(record)) =
            sender.try_send(record)
        {
            lost(&record, "the disk does not follow");
        }
    }
}

impl Drop for AuditLog {
    /// Waits until everything is written.
    fn drop(&mut self) {
        self.sender = None;
        let writer = self
            .writer
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            // it does not panic
            let _ = writer.join();
        }
    }
}

/// The time of a record.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

struct Target {
    path: PathBuf,
    max_bytes: u64,
    file: File,
    bytes: u64,
}

impl Target {
    fn open(path: PathBuf, max_bytes: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path,
            max_bytes,
            file,
            bytes,
        })
    }

    /// Writes until nobody is left to send.
    fn write_all(mut self, records: &Receiver<AuditRecord>) {
        while let Ok(first) = records.recv() {
            let mut batch = vec![first];
            batch.extend(records.try_iter());
            if let Err(error) = self.write(&batch) {
                for record in &batch {
                    lost(record, &error.to_string());
                }
            }
        }
    }

    fn write(&mut self, batch: &[AuditRecord]) -> io::Result<()> {
        let mut text = Vec::new();
        for record in batch {
            serde_json::to_writer(&mut text, record)?;
            text.push(b'\n');
        }
        if self.bytes > 0 && self.bytes + text.len() as u64 > self.max_bytes {
            for (from, to) in [(".3", ".4"), (".2", ".3"), (".1", ".2"), ("", ".1")] {
                match std::fs::rename(self.named(from), self.named(to)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            *self = Self::open(self.path.clone(), self.max_bytes)?;
        }
        if let Err(error) = self.file.write_all(&text) {
            // half a line would swallow the next one
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += text.len() as u64;
        self.file.sync_data()
    }

    fn named(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

fn lost(record: &AuditRecord, why: &str) {
    let record = serde_json::to_string(record).unwrap_or_default();
    tracing::error!(record, "the audit log could not be written: {why}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn record(at: usize) -> AuditRecord {
        AuditRecord {
            time: now(),
            principal: Some("alice\n".to_owned()),
            peer: None,
            method: "/perfagent.v1.InstanceService/DeleteInstance".to_owned(),
            resource: Some(format!("i-{at}")),
            request_id: "r".to_owned(),
            trace_id: None,
            outcome: "OK",
            answered: None,
        }
    }

    #[test]
    fn records_are_lines_and_the_files_stay_small() {
        let directory = tempfile::tempdir().unwrap();
        let log = AuditLog::with_limit(directory.path(), 2_000).unwrap();
        for at in 0..40 {
            log.record(record(at));
        }
        drop(log);
        let path = directory.path().join(FILE);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["resource"], "i-39");
        assert_eq!(last["principal"], "alice\n");
        // a later start goes on where this one ended
        let log = AuditLog::with_limit(directory.path(), 1 << 20).unwrap();
        log.record(record(40));
        drop(log);
        let longer = std::fs::read_to_string(&path).unwrap();
        assert!(longer.starts_with(&text) && longer.len() > text.len());
    }

    #[test]
    fn a_full_file_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        for at in 0..20 {
            let log = AuditLog::with_limit(directory.path(), 1_000).unwrap();
            log.record(record(at));
            drop(log);
        }
        let bytes = |name: &str| {
            std::fs::metadata(directory.path().join(name))
                .unwrap()
                .len()
        };
        assert!(bytes(FILE) <= 1_000 && bytes("audit.jsonl.1") <= 1_000);
    }

    #[test]
    fn what_became_of_a_call_counts_above_its_answer() {
        let directory = tempfile::tempdir().unwrap();
        let log = Arc::new(AuditLog::open(directory.path()).unwrap());
        let open = Arc::new(OpenRecord::new(log.clone()));
        let going_on = open.clone();
        open.answered(AuditRecord {
            outcome: "DEADLINE_EXCEEDED",
            ..record(1)
        });
        drop(open);
        // the caller has its answer, and the change is made
        going_on.done("OK");
        drop(going_on);
        drop(log);
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["outcome"], &line["answered"]),
            (&"OK".into(), &"DEADLINE_EXCEEDED".into())
        );
    }
}
