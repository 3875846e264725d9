//! One busy connection must not starve its worker's others: each poll of a connection's task may move so many bytes, then it
//! queues up again.
//!
//! Must never hold a byte back for longer than that: whoever is told to wait is woken at once.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
};

use crate::limits;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(limits::POLL_BYTES) };
}

/// The task of a connection.
pub struct Fair<F>(Pin<Box<F>>);

impl<F: Future> Fair<F> {
    /// Each poll of `task` begins with a whole allowance.
    pub fn new(task: F) -> Fair<F> {
        Fair(Box::pin(task))
    }
}

impl<F: Future> Future for Fair<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        LEFT.set(limits::POLL_BYTES);
        self.0.as_mut().poll(cx)
    }
}

/// Ready as long as this poll has some of its allowance left.
pub fn poll_proceed(cx: &mut Context<'_>) -> Poll<()> {
    if LEFT.get() > 0 {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// These bytes were moved.
pub fn spend(bytes: usize) {
    LEFT.set(LEFT.get().saturating_sub(bytes));
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_poll_that_moved_its_bytes_waits_for_the_next_and_is_woken() {
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        let mut moved = 0;
        let mut task = Fair::new(poll_fn(|cx| {
            while moved < 3 * limits::POLL_BYTES {
                std::task::ready!(poll_proceed(cx));
                spend(limits::POLL_BYTES / 2);
                moved += limits::POLL_BYTES / 2;
            }
            Poll::Ready(())
        }));
        let polls = (0..).find(|_poll| Pin::new(&mut task).poll(&mut cx).is_ready());
        assert_eq!((polls, woken.0.load(Ordering::Relaxed)), (Some(2), 2));
    }
}
