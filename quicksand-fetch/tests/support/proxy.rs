//! A real HTTP proxy on the loopback interface, which opens tunnels (`CONNECT`), all of them to one server whatever their target.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// The proxy. Dropping it closes its port.
pub(crate) struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    closed: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts one that leads to a port of this host.
    pub(crate) fn to(target: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy { port, asked: Arc::default(), closed: Arc::default() };
        let (asked, closed) = (Arc::clone(&proxy.asked), Arc::clone(&proxy.closed));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let asked = Arc::clone(&asked);
                thread::spawn(move || tunnel(stream, target, &asked));
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The first line of each request that came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn tunnel(stream: TcpStream, target: u16, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    // A client says nothing more before it has an answer, so nothing of the tunnel is in the buffer.
    let mut client = BufReader::new(stream);
    let mut first = String::new();
    client.read_line(&mut first)?;
    asked.lock().unwrap().push(first.trim_end().to_owned());
    loop {
        let mut line = String::new();
        if client.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            break;
        }
    }
    let mut client = client.into_inner();
    if !first.starts_with("CONNECT ") {
        return client.write_all(b"HTTP/1.1 405 Tunnels Only\r\nContent-Length: 0\r\n\r\n");
    }
    let server = TcpStream::connect(("127.0.0.1", target))?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut server = server;
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Write)
}
