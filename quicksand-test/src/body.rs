//! The body of a test, watched until it ends in one way or another.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use quicksand_core::harness::hold;
use tokio::time::sleep;

/// How a body ended.
#[derive(Debug)]
pub(crate) enum End<T> {
    Returned(T),
    Panicked(Box<dyn Any + Send>),
    /// It still ran when its time was over.
    TimedOut,
    /// It still ran when this process was told to end.
    Terminated,
}

/// Runs a body until it ends, `limit` is over, or `terminated` comes. A body that has not ended is left as it stands.
pub(crate) async fn watch<T>(
    mut body: Pin<&mut impl Future<Output = T>>,
    limit: Duration,
    terminated: impl Future<Output = ()>,
) -> End<T> {
    let caught = poll_fn(|context| {
        // Nobody goes on with a body that panicked, and what it shares with others is theirs to keep whole.
        let poll = || catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(context)));
        let (polled, held) = hold(poll);
        let end = match polled {
            Ok(Poll::Pending) => {
                held.release();
                return Poll::Pending;
            }
            Ok(Poll::Ready(value)) => End::Returned(value),
            Err(panic) => End::Panicked(panic),
        };
        // The programs whose handles the body dropped as it ended run on: they are thrown away with their machine, or kept with it.
        drop(held);
        Poll::Ready(end)
    });
    tokio::select! {
        biased;
        end = caught => end,
        () = terminated => End::Terminated,
        () = sleep(limit) => End::TimedOut,
    }
}

/// The words of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "a panic without words",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::pending, pin::pin};

    async fn end<T>(body: impl Future<Output = T>) -> End<T> {
        watch(pin!(body), Duration::from_millis(20), pending()).await
    }

    #[tokio::test]
    async fn ends_are_told_apart() {
        assert!(matches!(end(async { 7 }).await, End::Returned(7)));
        assert!(matches!(end(pending::<()>()).await, End::TimedOut));
        let panics = async {
            tokio::task::yield_now().await;
            std::panic::resume_unwind(Box::new("as asked"));
        };
        let End::Panicked(panic) = end(panics).await else { panic!() };
        assert_eq!(panic_message(&*panic), "as asked");
        let terminated = watch(pin!(pending::<()>()), Duration::from_secs(9), async {}).await;
        assert!(matches!(terminated, End::Terminated));
    }
}
