//! As much of the package `quicksand` as the generated code refers to.

use std::cell::Cell;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NetworkMode {
    MountsOnly,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Accel {
    Tcg,
}

/// A machine that knows which setup prepared it.
#[derive(Debug, Default)]
pub(crate) struct Sandbox(Cell<u32>);

impl Sandbox {
    pub(crate) fn prepare(&self, by: u32) {
        self.0.set(by);
    }

    pub(crate) fn prepared(&self) -> u32 {
        self.0.get()
    }
}

pub(crate) mod __private {
    use std::{
        cell::Cell,
        fmt::Display,
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use super::{Accel, NetworkMode, Sandbox};

    pub(crate) type Setup = for<'a> fn(&'a Sandbox) -> Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

    pub(crate) struct TestMeta {
        pub(crate) name: &'static str,
        pub(crate) manifest_dir: &'static str,
        pub(crate) image: &'static str,
        pub(crate) save: Option<SaveMeta>,
        pub(crate) memory: Option<u64>,
        pub(crate) cpus: Option<u32>,
        pub(crate) network: Option<NetworkMode>,
        pub(crate) accel: Option<Accel>,
        pub(crate) timeout: Option<Duration>,
    }

    pub(crate) struct SaveMeta {
        pub(crate) name: &'static str,
        pub(crate) fingerprint: &'static str,
        pub(crate) setup: Option<Setup>,
    }

    pub(crate) trait SetupOutcome {
        fn into_result(self) -> Result<(), String>;
    }

    impl SetupOutcome for () {
        fn into_result(self) -> Result<(), String> {
            Ok(())
        }
    }

    impl<E: Display> SetupOutcome for Result<(), E> {
        fn into_result(self) -> Result<(), String> {
            self.map_err(|error| error.to_string())
        }
    }

    /// What the test that runs on this thread asked for.
    #[derive(Clone, Copy)]
    pub(crate) struct Seen {
        pub(crate) name: &'static str,
        pub(crate) manifest_dir: &'static str,
        pub(crate) image: &'static str,
        pub(crate) save: Option<&'static str>,
        pub(crate) fingerprint: Option<&'static str>,
        pub(crate) memory: Option<u64>,
        pub(crate) cpus: Option<u32>,
        pub(crate) network: Option<NetworkMode>,
        pub(crate) accel: Option<Accel>,
        pub(crate) timeout: Option<Duration>,
    }

    thread_local!(static SEEN: Cell<Option<Seen>> = const { Cell::new(None) });

    pub(crate) fn last_meta() -> Seen {
        SEEN.get().expect("called by a test")
    }

    pub(crate) fn run<F, T>(meta: &TestMeta, body: F) -> T
    where
        F: AsyncFnOnce(Sandbox) -> T,
    {
        SEEN.set(Some(Seen {
            name: meta.name,
            manifest_dir: meta.manifest_dir,
            image: meta.image,
            save: meta.save.as_ref().map(|save| save.name),
            fingerprint: meta.save.as_ref().map(|save| save.fingerprint),
            memory: meta.memory,
            cpus: meta.cpus,
            network: meta.network,
            accel: meta.accel,
            timeout: meta.timeout,
        }));
        let sandbox = Sandbox::default();
        if let Some(setup) = meta.save.as_ref().and_then(|save| save.setup) {
            finish(setup(&sandbox)).expect("the setup succeeds");
        }
        finish(body(sandbox))
    }

    /// The outcome of a future that never waits.
    fn finish<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("nothing here waits"),
        }
    }
}
