//! One run of a program: nothing of it is left when it is over, however it ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Most bytes of an answer.
pub(super) const MAX_STDOUT_BYTES: usize = 1 << 20;
/// So much of the end of what it complains is kept.
const MAX_STDERR_BYTES: usize = 8 << 10;
const CHUNK_BYTES: usize = 16 << 10;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    /// Program and arguments.
    pub(super) argv: &'a [String],
    /// All the variables that it gets.
    pub(super) env: &'a [(String, OsString)],
    /// What it reads.
    pub(super) input: &'a [u8],
    /// It never sees the end of its input.
    pub(super) holds_input_open: bool,
    /// How long it may take.
    pub(super) timeout: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Ran {
    /// How it ended.
    pub(super) status: ExitStatus,
    /// What it answered.
    pub(super) stdout: Vec<u8>,
    /// The end of what it complained.
    pub(super) stderr: Vec<u8>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// It could not be started.
    #[error("cannot be started: {0}")]
    Start(io::Error),
    /// It could not be waited for.
    #[error("cannot be waited for: {0}")]
    Wait(io::Error),
    /// It did not end, and was ended.
    #[error("was ended, since it took too long")]
    TimedOut,
    /// It said too much, and was ended.
    #[error("more than {MAX_STDOUT_BYTES} bytes")]
    TooLarge,
}

/// The group of a program whose leader has not been reaped: the number is nobody else's until then.
struct Group(Option<Pid>);

impl Group {
    /// Ends all that is in it.
    fn end(&mut self) {
        if let Some(leader) = self.0.take() {
            // none of them left is as good
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs a program to its end.
///
/// # Errors
/// See [`RunError`].
pub(super) async fn run(run: Run<'_>) -> Result<Ran, RunError> {
    tokio::time::timeout(run.timeout, exchange(run))
        .await
        .unwrap_or(Err(RunError::TimedOut))
}

async fn exchange(run: Run<'_>) -> Result<Ran, RunError> {
    let (program, arguments) = run
        .argv
        .split_first()
        .ok_or_else(|| RunError::Start(io::ErrorKind::InvalidInput.into()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(run.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(RunError::Start)?;
    let gone = || RunError::Wait(io::ErrorKind::NotFound.into());
    let leader = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
        .ok_or_else(gone)?;
    // dropped before the child, which is reaped when that is dropped
    let mut group = Group(Some(leader));
    let (mut stdin, mut stdout, mut stderr) = (
        child.stdin.take().ok_or_else(gone)?,
        child.stdout.take().ok_or_else(gone)?,
        child.stderr.take().ok_or_else(gone)?,
    );
    // its end is awaited without reaping it, so that its group can still be ended by its number
    let mut ended = tokio::task::spawn_blocking(move || {
        waitid(
            WaitId::Pid(leader),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        )
    });
    let (mut answer, mut complaint) = (Vec::new(), Vec::new());
    let talk = async {
        let feed = async {
            // who does not want to read need not
            let _ = stdin.write_all(run.input).await;
            match run.holds_input_open {
                true => std::future::pending().await,
                false => drop(stdin),
            }
            Ok(())
        };
        tokio::try_join!(
            feed,
            read_answer(&mut stdout, &mut answer),
            read_complaint(&mut stderr, &mut complaint)
        )
    };
    let waited = tokio::select! {
        waited = &mut ended => waited,
        talked = talk => {
            talked?;
            ended.await
        }
    };
    waited
        .map_err(|error| RunError::Wait(io::Error::other(error)))?
        .map_err(|error| RunError::Wait(error.into()))?;
    group.end();
    // what it wrote last may still be in the pipes, which others that left the group may hold open
    drain(&stdout, |chunk| push_answer(&mut answer, chunk))?;
    drain(&stderr, |chunk| {
        push_complaint(&mut complaint, chunk);
        Ok(())
    })?;
    let status = child.wait().await.map_err(RunError::Wait)?;
    Ok(Ran {
        status,
        stdout: answer,
        stderr: complaint,
    })
}

async fn read_answer(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut Vec<u8>,
) -> Result<(), RunError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    // what cannot be read is as good as ended: the answer is then no answer
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        push_answer(to, chunk.get(..count).unwrap_or_default())?;
    }
    Ok(())
}

async fn read_complaint(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut Vec<u8>,
) -> Result<(), RunError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        push_complaint(to, chunk.get(..count).unwrap_or_default());
    }
    Ok(())
}

/// What is in a pipe now, and no more.
fn drain(
    pipe: &impl AsFd,
    mut push: impl FnMut(&[u8]) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match rustix::io::read(pipe, chunk.as_mut_slice()) {
            Ok(count @ 1..) => push(chunk.get(..count).unwrap_or_default())?,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

fn push_answer(to: &mut Vec<u8>, chunk: &[u8]) -> Result<(), RunError> {
    if to.len() + chunk.len() > MAX_STDOUT_BYTES {
        return Err(RunError::TooLarge);
    }
    to.extend_from_slice(chunk);
    Ok(())
}

fn push_complaint(to: &mut Vec<u8>, chunk: &[u8]) {
    to.extend_from_slice(chunk);
    let surplus = to.len().saturating_sub(MAX_STDERR_BYTES);
    to.drain(..surplus);
}
