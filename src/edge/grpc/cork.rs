//! Frames that are written together: a connection with a hundred streams sends what they have to say at one time in few
//! writes, each of which costs the kernel, and the other end, more than the bytes in it.
//!
//! h2 flushes after each large frame. Here a flush is put off until the connection is polled again, which it is at once
//! but after the streams that are ready too; whoever polls it reads first, and a read sends what was put off.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// What was written and not sent.
#[derive(Debug, Default)]
pub(super) struct Cork {
    bytes: Vec<u8>,
    /// Of them so many are sent.
    sent: usize,
    /// The connection's task is told to poll again.
    told: bool,
}

/// So much is sent at once.
const CORK_BYTES: usize = 32 << 10;

/// Buffers that are used again: of all connections, few send at one time.
static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
const SPARE_BUFFERS: usize = 16;

impl Cork {
    /// Takes what fits, and sends first where nothing does.
    pub(super) fn write<T: AsyncWrite + Unpin>(
        &mut self,
        to: &mut T,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= CORK_BYTES {
            ready!(self.send(to, context))?;
        }
        if self.bytes.capacity() == 0 {
            self.bytes = spare();
        }
        let before = self.bytes.len();
        for slice in slices {
            let room = CORK_BYTES.saturating_sub(self.bytes.len());
            let fits = slice.get(..room).unwrap_or(slice);
            self.bytes.extend_from_slice(fits);
        }
        Poll::Ready(Ok(self.bytes.len() - before))
    }

    /// Has the connection polled again if there is something to send; whether there is.
    pub(super) fn put_off(&mut self, context: &Context<'_>) -> bool {
        let any = !self.bytes.is_empty();
        if any && !std::mem::replace(&mut self.told, true) {
            context.waker().wake_by_ref();
        }
        any
    }

    /// Sends all.
    pub(super) fn send<T: AsyncWrite + Unpin>(
        &mut self,
        to: &mut T,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        // until all is sent: where it has to wait, whoever made room tells
        self.told = true;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.told = false;
        self.sent = 0;
        put_back(std::mem::take(&mut self.bytes));
        Pin::new(to).poll_flush(context)
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        put_back(std::mem::take(&mut self.bytes));
    }
}

fn spare() -> Vec<u8> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    spare
        .pop()
        .unwrap_or_else(|| Vec::with_capacity(CORK_BYTES))
}

fn put_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.len() < SPARE_BUFFERS {
        spare.push(buffer);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    /// Takes so many bytes at each write, and none where it says 0.
    struct Slow {
        taken: Vec<u8>,
        takes: Vec<usize>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            match self.takes.pop() {
                Some(0) => Poll::Pending,
                limit => {
                    let taken = bytes.len().min(limit.unwrap_or(usize::MAX));
                    self.taken.extend_from_slice(&bytes[..taken]);
                    Poll::Ready(Ok(taken))
                }
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    proptest! {
        #[test]
        fn all_bytes_arrive_in_their_order(
            writes in prop::collection::vec(0_usize..40_000, 1..12),
            takes in prop::collection::vec(0_usize..50_000, 0..40),
        ) {
            let woken = Arc::new(Woken::default());
            let waker = woken.clone().into();
            let mut context = Context::from_waker(&waker);
            let mut to = Slow { taken: Vec::new(), takes };
            let mut cork = Cork::default();
            let mut expected = Vec::new();
            for (at, length) in writes.into_iter().enumerate() {
                let bytes = vec![u8::try_from(at).unwrap(); length];
                expected.extend_from_slice(&bytes);
                let (mut head, mut tail) = bytes.split_at(length / 3);
                while head.len() + tail.len() > 0 {
                    let slices = [IoSlice::new(head), IoSlice::new(tail)];
                    let Poll::Ready(written) = cork.write(&mut to, &mut context, &slices) else {
                        continue;
                    };
                    let written = written.unwrap();
                    prop_assert!(written > 0);
                    let of_head = written.min(head.len());
                    (head, tail) = (&head[of_head..], &tail[written - of_head..]);
                    prop_assert!(cork.bytes.len() <= CORK_BYTES);
                }
            }
            let before = woken.0.load(Ordering::Relaxed);
            let left = !cork.bytes.is_empty();
            prop_assert_eq!(cork.put_off(&context), left);
            prop_assert_eq!(cork.put_off(&context), left);
            // once however often it is flushed
            prop_assert_eq!(woken.0.load(Ordering::Relaxed) - before, usize::from(left));
            while cork.send(&mut to, &mut context).is_pending() {}
            prop_assert_eq!(to.taken, expected);
            prop_assert!(!cork.put_off(&context));
        }
    }

    /// Where the other end does not read, room tells, and not the flush of each poll.
    #[test]
    fn one_that_does_not_read_costs_nothing() {
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut context = Context::from_waker(&waker);
        let mut to = Slow {
            taken: Vec::new(),
            takes: vec![0; 100],
        };
        let mut cork = Cork::default();
        let written = cork.write(&mut to, &mut context, &[IoSlice::new(b"some")]);
        assert!(written.is_ready());
        for _ in 0..100 {
            // as h2 does at each poll: it reads, which sends, and flushes
            assert!(cork.send(&mut to, &mut context).is_pending());
            assert!(cork.put_off(&context));
        }
        assert!(woken.0.load(Ordering::Relaxed) <= 1);
    }
}
