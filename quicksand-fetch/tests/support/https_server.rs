//! A real HTTPS server on the loopback interface, with a certificate of its own making, that serves files as publishers do, or as
//! nobody should. Each of the tests that share this uses some of it.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// What its certificate is for: where it is, and what it is taken for behind a proxy.
const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "dl-cdn.alpinelinux.org", "registry.test"];

/// What is served at a path.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) content: Content,
    pub(crate) manners: Manners,
    /// Its version: parts of one version are no parts of another.
    pub(crate) tag: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Bytes(Arc<Vec<u8>>),
    File(PathBuf),
}

/// How a server behaves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Manners {
    Good,
    /// Sends all of a file whatever part is asked for.
    NoRanges,
    /// Closes the connection after so many bytes of each answer.
    BreaksAfter(u64),
    /// Sends nothing more after so many bytes of each answer.
    StallsAfter(u64),
    /// Announces so many bytes, whatever there is.
    Announces(u64),
    /// Announces nothing, and closes the connection at the end.
    AnnouncesNothing,
    Status(u16),
    RedirectsTo(String),
    /// Sends a byte at a time, with pauses.
    Trickles,
}

impl Served {
    pub(crate) fn bytes(content: impl Into<Vec<u8>>) -> Served {
        let content = Content::Bytes(Arc::new(content.into()));
        Served { content, manners: Manners::Good, tag: Some("1".into()) }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> Served {
        Served { content: Content::File(path.into()), manners: Manners::Good, tag: Some("1".into()) }
    }

    pub(crate) fn with(mut self, manners: Manners) -> Served {
        self.manners = manners;
        self
    }
}

/// A request that came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

/// The server. Dropping it closes its port.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    /// Trusts the server.
    pub(crate) certificate: tempfile::NamedTempFile,
    files: Arc<Mutex<HashMap<String, Served>>>,
    requests: Arc<Mutex<Vec<Request>>>,
    closed: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let made = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned)).unwrap();
        let mut certificate = tempfile::NamedTempFile::new().unwrap();
        certificate.write_all(made.cert.pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server =
            Server { port, certificate, files: Arc::default(), requests: Arc::default(), closed: Arc::default() };
        let (config, files, requests) = (Arc::new(config), Arc::clone(&server.files), Arc::clone(&server.requests));
        let closed = Arc::clone(&server.closed);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let (config, files, requests) = (Arc::clone(&config), Arc::clone(&files), Arc::clone(&requests));
                let closed = Arc::clone(&closed);
                thread::spawn(move || {
                    let connection = ServerConnection::new(config).unwrap();
                    // Clients that go away are part of what is tested.
                    let _ = serve(StreamOwned::new(connection, stream?), &files, &requests, &closed);
                    Ok::<_, io::Error>(())
                });
            }
        });
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn serve(&self, path: &str, served: Served) -> String {
        self.files.lock().unwrap().insert(path.to_owned(), served);
        self.url(path)
    }

    /// The requests for a path, in their order.
    pub(crate) fn requests(&self, path: &str) -> Vec<Request> {
        self.requests.lock().unwrap().iter().filter(|request| request.path == path).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    stream: StreamOwned<ServerConnection, TcpStream>,
    files: &Mutex<HashMap<String, Served>>,
    requests: &Mutex<Vec<Request>>,
    closed: &AtomicBool,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    requests.lock().unwrap().push(Request { path: path.clone(), headers: headers.clone() });
    let served = files.lock().unwrap().get(&path).cloned();
    let stream = stream.get_mut();
    let served = served.unwrap_or_else(|| Served::bytes("no such file").with(Manners::Status(404)));
    answer(stream, &served, &headers, closed)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn answer(
    to: &mut impl Write,
    served: &Served,
    headers: &HashMap<String, String>,
    closed: &AtomicBool,
) -> io::Result<()> {
    let (mut content, len): (Box<dyn Read>, u64) = match &served.content {
        Content::Bytes(bytes) => {
            let from = range(served, headers).unwrap_or(0).min(bytes.len() as u64);
            (Box::new(io::Cursor::new(bytes[from as usize..].to_vec())), bytes.len() as u64)
        }
        Content::File(path) => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(range(served, headers).unwrap_or(0)))?;
            (Box::new(file), path.metadata()?.len())
        }
    };
    let from = range(served, headers);
    let mut announced = len - from.unwrap_or(0).min(len);
    let (mut status, mut more, mut limit) = ("200 OK".to_owned(), String::new(), u64::MAX);
    if let Some(from) = from {
        status = "206 Partial Content".into();
        more.push_str(&format!("Content-Range: bytes {from}-{}/{len}\r\n", len.saturating_sub(1)));
    }
    match &served.manners {
        Manners::BreaksAfter(count) | Manners::StallsAfter(count) => limit = *count,
        Manners::Announces(count) => announced = *count,
        Manners::Status(number) => {
            status = format!("{number} Refused");
            (announced, limit) = (0, 0);
        }
        Manners::RedirectsTo(url) => {
            status = "302 Found".into();
            more.push_str(&format!("Location: {url}\r\n"));
            (announced, limit) = (0, 0);
        }
        _ => {}
    }
    if served.manners != Manners::AnnouncesNothing {
        more.push_str(&format!("Content-Length: {announced}\r\n"));
    }
    if let Some(tag) = &served.tag {
        more.push_str(&format!("ETag: \"{tag}\"\r\n"));
    }
    write!(to, "HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n")?;
    to.flush()?;
    if served.manners == Manners::Trickles {
        let mut byte = [0];
        while !closed.load(Ordering::Relaxed) && content.read(&mut byte)? == 1 {
            to.write_all(&byte)?;
            to.flush()?;
            thread::sleep(Duration::from_millis(20));
        }
        return Ok(());
    }
    io::copy(&mut content.take(limit), to)?;
    to.flush()?;
    while matches!(served.manners, Manners::StallsAfter(_)) && !closed.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The first byte that is asked for, where a part is.
fn range(served: &Served, headers: &HashMap<String, String>) -> Option<u64> {
    if matches!(served.manners, Manners::NoRanges | Manners::Status(_) | Manners::RedirectsTo(_)) {
        return None;
    }
    let from = headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
    match (headers.get("if-range"), &served.tag) {
        (Some(wanted), Some(tag)) if *wanted != format!("\"{tag}\"") => None,
        _ => Some(from),
    }
}
