//! Work that waits for files, on a thread where that holds up nobody.

/// Does `work` on such a thread. A panic in it is the caller's.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and drops whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}
