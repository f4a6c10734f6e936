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

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kernel {
    Image,
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
        process::{ExitCode, Termination},
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use super::{Accel, Kernel, NetworkMode, Sandbox};

    pub(crate) type Setup = for<'a> fn(&'a Sandbox) -> Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct TestMeta {
        pub(crate) name: &'static str,
        pub(crate) manifest_dir: &'static str,
        pub(crate) start: Start,
        pub(crate) machine: MachineMeta,
        pub(crate) timeout: Option<Duration>,
        pub(crate) runtime: Runtime,
        pub(crate) requires: &'static [Requirement],
        pub(crate) should_panic: bool,
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Start {
        Image(Variant),
        Save { name: &'static str, image: Option<Variant> },
        Own(SetupMeta),
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) struct Variant {
        pub(crate) image: &'static str,
        pub(crate) suffix: Option<&'static str>,
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct SetupMeta {
        pub(crate) name: &'static str,
        pub(crate) manifest_dir: &'static str,
        pub(crate) save: &'static str,
        pub(crate) base: Base,
        pub(crate) work: Work,
        pub(crate) inputs: &'static [&'static str],
        pub(crate) max_age: Option<Duration>,
        pub(crate) machine: MachineMeta,
        pub(crate) timeout: Option<Duration>,
    }

    /// What a test returned.
    pub(crate) struct Returned<T>(Cell<Option<T>>);

    impl<T> Returned<T> {
        pub(crate) fn new(value: T) -> Returned<T> {
            Returned(Cell::new(Some(value)))
        }
    }

    /// Nothing tells by itself here.
    #[allow(dead_code)]
    pub(crate) trait ByOutcome {}
    #[allow(dead_code)]
    pub(crate) trait ByWords {}

    pub(crate) trait ByTermination {
        fn told(&self) -> ExitCode;
    }

    impl<T: Termination> ByTermination for Returned<T> {
        fn told(&self) -> ExitCode {
            self.0.take().unwrap().report()
        }
    }

    /// What tests say where the feature `runner` is on.
    #[allow(dead_code)]
    pub(crate) struct Registered {
        pub(crate) name: &'static str,
        pub(crate) ignored: Option<&'static str>,
        pub(crate) should_panic: Option<&'static str>,
        pub(crate) retries: u8,
        pub(crate) run: fn(),
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) enum Base {
        Image(Variant),
        Images(&'static [Variant]),
        Save(&'static str),
    }

    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Work {
        Function { fingerprint: &'static str, setup: Setup },
        Commands(&'static [&'static str]),
    }

    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    pub(crate) struct MachineMeta {
        pub(crate) memory: Option<u64>,
        pub(crate) cpus: Option<u32>,
        pub(crate) network: Option<NetworkMode>,
        pub(crate) accel: Option<Accel>,
        pub(crate) kernel: Option<Kernel>,
        pub(crate) disk_size: Option<u64>,
        pub(crate) display: Option<bool>,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) enum Runtime {
        Default,
        CurrentThread,
        MultiThread(Option<usize>),
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) enum Requirement {
        Kvm,
        Command(&'static str),
    }

    pub(crate) fn call_setup<'a, O: SetupOutcome>(
        setup: impl AsyncFn(&Sandbox) -> O + 'a,
        sandbox: &'a Sandbox,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + 'a>> {
        Box::pin(async move { setup(sandbox).await.into_result() })
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

    /// There is no KVM here, and every program.
    pub(crate) fn is_skipped(meta: &TestMeta) -> bool {
        meta.requires.contains(&Requirement::Kvm)
    }

    pub(crate) mod inventory {
        /// Only sees to it that it is a constant.
        macro_rules! submit {
            ($it:expr) => {
                const _: () = {
                    let _ = $it;
                };
            };
        }
        pub(crate) use submit;
    }

    thread_local!(static SEEN: Cell<Option<TestMeta>> = const { Cell::new(None) });

    /// What the test that runs on this thread asked for.
    pub(crate) fn last_meta() -> TestMeta {
        SEEN.get().expect("called by a test")
    }

    pub(crate) fn run<F, T>(meta: &TestMeta, body: F)
    where
        F: AsyncFnOnce(Sandbox) -> T,
        T: Termination,
    {
        SEEN.set(Some(*meta));
        let sandbox = Sandbox::default();
        if let Start::Own(SetupMeta { work: Work::Function { setup, .. }, .. }) = meta.start {
            finish(setup(&sandbox)).expect("the setup succeeds");
        }
        assert_eq!(finish(body(sandbox)).report(), ExitCode::SUCCESS);
    }

    pub(crate) fn run_blocking<T: Termination>(meta: &TestMeta, body: impl FnOnce(Sandbox) -> T) {
        run(meta, async |sandbox| body(sandbox));
    }

    /// The outcome of a future that never waits.
    fn finish<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("nothing here waits"),
        }
    }
}
