//! The agent's main loop: frames from the host, each request carried out on a thread of its own.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fs,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::sys::signal::Signal;
use quicksand_protocol::{
    VERSION,
    frame::{Decoder, Frame, Kind},
    message::{Announce, Done, Failure, Hello, Request, Welcome, Window, from_payload, to_payload},
};

use crate::{
    attributes, conditions, connection, crowd, exec, facts, files, follow, go_down, grow, hosts, index, left_behind,
    limits, mounts, network, new_user,
    operation::Operation,
    output,
    port::{self, Arrival, Writer},
    settle, signals, timers, wake,
};

/// A request's thread copies bytes and starts processes; its buffers are on the heap.
pub(crate) const STACK: usize = 128 * 1024;

/// How many reads in a row find the host away before it has gone.
const MOMENTS: u32 = 200;

/// The variable by which process 1 tells the agent what is wrong with the guest's kernel. Programs of the host's get none of ours.
pub(crate) const KERNEL_FAULT: &str = "QUICKSAND_KERNEL_FAULT";

type Operations = Arc<Mutex<HashMap<u32, Arc<Operation>>>>;

/// What the agent has under way.
struct Server {
    port: Arc<Writer>,
    operations: Operations,
}

/// Serves the host. Returns only if the port failed.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    // The guest's memory may be filled by what it runs; the agent must outlive that to report it.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    signals::forget_inherited();
    limits::raise_own();
    left_behind::start().map_err(|e| format!("read what programs leave behind: {e}"))?;
    let (mut reader, writer) = port::open().map_err(|e| format!("open the port to the host: {e}"))?;
    let port = Arc::new(writer);
    let kernel_fault = env::var(KERNEL_FAULT).ok().map(|fault| fault.chars().take(1024).collect());
    port.begin_session(Kind::Announce, &to_payload(&Announce { version: VERSION, kernel_fault })?)?;

    let mut server = Server { port, operations: Operations::default() };
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut away = 0;
    loop {
        match reader.read(&mut buffer).map_err(|e| format!("read the port to the host: {e}"))? {
            Arrival::Bytes(len) => {
                away = 0;
                decoder.push(&buffer[..len]);
            }
            // For a moment, the host is away after a sleep of the guest as well.
            Arrival::HostAway if away < MOMENTS => away += 1,
            Arrival::HostAway => {
                decoder.reset();
                detach_all(&server.operations);
            }
        }
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => server.handle(frame)?,
                Ok(None) => break,
                // What an earlier session left in the channel; the next one sends padding first.
                Err(_) => {}
            }
        }
    }
}

impl Server {
    fn handle(&mut self, frame: Frame) -> Result<(), Box<dyn Error>> {
        if frame.kind == Kind::Hello {
            return self.welcome(&frame.payload);
        }
        let operation = lock(&self.operations).get(&frame.id).cloned();
        match (frame.kind, operation) {
            (Kind::Request, None) => self.start(frame),
            (Kind::Data, Some(operation)) => operation.data(&frame.payload),
            (Kind::Eof, Some(operation)) => operation.eof(),
            (Kind::Credit, Some(operation)) => operation.credit(frame.stream, &frame.payload),
            (Kind::Cancel, Some(operation)) => operation.cancel(),
            (Kind::Signal, Some(operation)) => {
                if let Some(signal) = signal(&frame.payload) {
                    operation.signal(signal);
                }
            }
            (Kind::Resize, Some(operation)) => {
                if let Some(window) = Window::from_bytes(&frame.payload) {
                    operation.resize(window);
                }
            }
            // For an operation that has ended meanwhile, or left by an earlier session.
            _ => {}
        }
        Ok(())
    }

    /// Begins a session. A clone's start waits for this alone.
    fn welcome(&mut self, hello: &[u8]) -> Result<(), Box<dyn Error>> {
        if let Ok(hello) = from_payload::<Hello>(hello) {
            detach_all(&self.operations);
            let welcome = Welcome { version: VERSION, nonce: hello.nonce };
            self.port.begin_session(Kind::Welcome, &to_payload(&welcome)?)?;
        }
        Ok(())
    }

    fn start(&mut self, frame: Frame) {
        let id = frame.id;
        let operation = Operation::new(id, Arc::clone(&self.port));
        let request = match from_payload::<Request>(&frame.payload) {
            // On this thread, so that it is done before anything else begins.
            Ok(Request::Wake(request)) => return operation.finish(wake::wake(&request)),
            Ok(Request::Rename { machine_id }) => return operation.finish(Ok(wake::rename(&machine_id))),
            Ok(Request::Ping) => return operation.finish(Ok(Done::Nothing)),
            Ok(request) => request,
            Err(error) => {
                let message = format!("{error}: the host speaks another version");
                return operation.finish(Err(Failure { errno: 0, message }));
            }
        };
        // On this thread, so that those that wait take no threads, of which there are only so many.
        let place = matches!(request, Request::Exec(_)).then(crowd::enter);
        lock(&self.operations).insert(id, Arc::clone(&operation));
        let (worker, registry) = (Arc::clone(&operation), Arc::clone(&self.operations));
        let spawned = thread::Builder::new().stack_size(STACK).spawn(move || {
            let result = carry_out(request, &worker, &registry);
            drop(place);
            let mut registry = lock(&registry);
            // A later session may have given the same id to an operation of its own.
            if registry.get(&id).is_some_and(|current| Arc::ptr_eq(current, &worker)) {
                registry.remove(&id);
            }
            drop(registry);
            worker.finish(result);
        });
        if let Err(error) = spawned {
            lock(&self.operations).remove(&id);
            let errno = error.raw_os_error().unwrap_or(0);
            operation.finish(Err(Failure { errno, message: format!("start a thread: {error}") }));
        }
    }
}

fn carry_out(request: Request, operation: &Arc<Operation>, operations: &Operations) -> Result<Done, Failure> {
    match request {
        Request::Exec(_)
        | Request::ReadFile { .. }
        | Request::WriteFile { .. }
        | Request::Upload { .. }
        | Request::Download { .. }
        | Request::Await(_)
        | Request::Follow { .. }
        | Request::Facts { .. } => mounts::refresh(),
        _ => {}
    }
    match request {
        Request::Ping | Request::Wake(_) | Request::Rename { .. } => Ok(Done::Nothing),
        Request::Exec(exec) => exec::run(exec, operation).map(Done::Exited),
        Request::ReadFile { path, limit } => files::read(&path, limit, operation),
        Request::WriteFile { path, mode } => files::write(&path, mode, operation),
        Request::Upload { path } => files::unpack(&path, operation),
        Request::Download { path } => files::pack(&path, operation),
        Request::Settle(settle) => settle::wait(settle),
        Request::AwaitFilters { operation } => {
            let program = lock(operations).get(&operation).cloned();
            let waited = program.is_some_and(|program| output::await_filters(&program));
            Ok(if waited { Done::Filtered } else { Done::Nothing })
        }
        Request::GoDown => go_down::go_down(),
        Request::Sync => {
            nix::unistd::sync();
            Ok(Done::Nothing)
        }
        Request::ExpectFreeze { sync } => {
            if sync {
                nix::unistd::sync();
            }
            timers::take_notes();
            Ok(Done::Nothing)
        }
        Request::Await(wanted) => conditions::wait(&wanted, operation),
        Request::Follow { path } => follow::follow(&path, operation),
        Request::CreateUser { name } => new_user::create(&name),
        Request::Connect(request) => connection::connect(&request, operation),
        Request::Listen { port } => connection::listen(port, operation),
        Request::Accept { connection } => connection::accept(connection, operation),
        Request::Hosts { entries } => Ok(hosts::replace(&entries)),
        Request::Cards { cards } => network::set_cards(&cards),
        Request::Mount(mount) => mounts::mount(mount),
        Request::Unmount { port } => mounts::unmount(&port),
        Request::GrowRoot { size } => grow::grow_root(size),
        Request::Facts { questions } => facts::tell(&questions, operation),
        Request::Index => index::send(operation),
        Request::Attributes => attributes::send(operation),
    }
}

fn signal(payload: &[u8]) -> Option<Signal> {
    Signal::try_from(i32::from_le_bytes(payload.try_into().ok()?)).ok()
}

fn detach_all(operations: &Operations) {
    let mut operations = lock(operations);
    if !operations.is_empty() {
        operations.drain().for_each(|(_, operation)| operation.detach());
    }
}

fn lock(operations: &Operations) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<Operation>>> {
    operations.lock().unwrap_or_else(PoisonError::into_inner)
}
