//! Blobs on their way from a registry to a file and back.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use reqwest::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::{LARGEST_DOCUMENT, Registry, RegistryError, http::Ask};
use crate::Digest;

/// How often something is tried, without a byte more having come.
const MOST_ATTEMPTS: u32 = 5;
/// What must come within the patience of a read, so that a server that sends a byte a minute is not waited for.
const LEAST_PROGRESS: u64 = 16 << 10;

impl Registry {
    /// A small blob, which is what its digest says.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn document(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, RegistryError> {
        if size > LARGEST_DOCUMENT {
            let (doing, expected) = (self.doing("pull", digest), format!("at most {LARGEST_DOCUMENT} bytes"));
            return Err(RegistryError::Wrong { doing, expected, found: size.to_string() });
        }
        self.small_blob(digest, size).await
    }

    /// A blob that fits into memory, and is what its digest says.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn small_blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, RegistryError> {
        let doing = self.doing("pull", digest);
        let mut bytes = Vec::new();
        self.pull(digest, size, &mut bytes, &mut |_| {}).await?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(RegistryError::Wrong { doing, expected: digest.to_string(), found: found.to_string() });
        }
        Ok(bytes)
    }

    /// Pulls a blob to a file, which may hold the first part of it already. That it is what its digest says is still to be checked.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn pull_to_file(
        &self,
        digest: &Digest,
        size: u64,
        path: &Path,
        arrived: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), RegistryError> {
        let failed = |source| RegistryError::Io { what: "write", path: path.to_owned(), source };
        let file = File::options().create(true).append(true).read(true).open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        if len > size {
            file.set_len(0).map_err(failed)?;
        }
        let mut target = Target { file, path };
        self.pull(digest, size, &mut target, arrived).await
    }

    /// Takes a download up again for as long as it comes on.
    async fn pull(
        &self,
        digest: &Digest,
        size: u64,
        to: &mut (impl Part + Send),
        arrived: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), RegistryError> {
        let mut attempt = 0;
        loop {
            let before = to.len()?;
            if before == size {
                arrived(size);
                return Ok(());
            }
            let error = match self.pull_once(digest, size, to, arrived).await {
                Ok(()) => continue,
                Err(error) => error,
            };
            attempt = if to.len()? > before { 1 } else { attempt + 1 };
            again(error, attempt).await?;
        }
    }

    async fn pull_once(
        &self,
        digest: &Digest,
        size: u64,
        to: &mut (impl Part + Send),
        arrived: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), RegistryError> {
        let doing = self.doing("pull", digest);
        let ask = Ask { from: to.len()?, ..Ask::default() };
        let url = self.http.url(&format!("blobs/{digest}"))?;
        let mut answer = self.http.ask(&doing, Method::GET, url, &ask, self.patience).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            // It does not know how to begin in the middle.
            to.clear()?;
        }
        let (mut since, mut then) = (Instant::now(), to.len()?);
        loop {
            let len = to.len()?;
            let piece = match self.http.piece(&doing, &mut answer).await? {
                None if len == size => return Ok(()),
                None => {
                    let source = Box::new(io::Error::from(io::ErrorKind::UnexpectedEof));
                    return Err(RegistryError::Failed { doing, source });
                }
                Some(piece) => piece,
            };
            if piece.len() as u64 > size - len {
                return Err(RegistryError::Wrong { doing, expected: format!("{size} bytes"), found: "more".into() });
            }
            to.append(&piece)?;
            arrived(len + piece.len() as u64);
            if since.elapsed() > self.patience {
                if len - then < LEAST_PROGRESS {
                    return Err(RegistryError::Stalled { doing, arrived: len, size });
                }
                (since, then) = (Instant::now(), len);
            }
        }
    }

    pub(super) fn doing(&self, what: &str, digest: &Digest) -> String {
        format!("{what} {digest} of {}", self.reference.whole())
    }
}

/// Waits before the next attempt, longer each time, where there is to be one.
pub(super) async fn again(error: RegistryError, attempts: u32) -> Result<(), RegistryError> {
    // What another attempt would not change.
    let is_final = matches!(
        error,
        RegistryError::Unauthorized { .. }
            | RegistryError::Certificate { .. }
            | RegistryError::Absent { .. }
            | RegistryError::Wrong { .. }
            | RegistryError::Io { .. }
    );
    if is_final || attempts == MOST_ATTEMPTS {
        return Err(error);
    }
    tracing::info!(target: "quicksand::registry", %error, attempts, "trying again");
    sleep(Duration::from_millis(200) * attempts * attempts).await;
    Ok(())
}

/// The part of a blob that has come.
trait Part {
    fn len(&self) -> Result<u64, RegistryError>;
    fn append(&mut self, bytes: &[u8]) -> Result<(), RegistryError>;
    fn clear(&mut self) -> Result<(), RegistryError>;
}

impl Part for Vec<u8> {
    fn len(&self) -> Result<u64, RegistryError> {
        Ok(Vec::len(self) as u64)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn clear(&mut self) -> Result<(), RegistryError> {
        Vec::clear(self);
        Ok(())
    }
}

/// A file that is written at its end.
struct Target<'a> {
    file: File,
    path: &'a Path,
}

impl Target<'_> {
    fn failed(&self, source: io::Error) -> RegistryError {
        RegistryError::Io { what: "write", path: self.path.to_owned(), source }
    }
}

impl Part for Target<'_> {
    fn len(&self) -> Result<u64, RegistryError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| self.failed(error))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.file.write_all(bytes).map_err(|error| self.failed(error))
    }

    fn clear(&mut self) -> Result<(), RegistryError> {
        self.file.set_len(0).map_err(|error| self.failed(error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    use super::*;
    use crate::{Settings, registry::Access};

    const CONTENT: &[u8] = b"what the blob holds, all of it";

    /// How a server answers one request for a blob.
    #[derive(Debug, Clone, Copy)]
    enum Answer {
        /// From where it is asked to, but for so many bytes at the end.
        ButFor(usize),
        /// From the start, whatever is asked for.
        Whole,
        /// The head, a byte, and no more.
        Stall,
        /// More than there is.
        More,
        Status(u16),
    }

    /// Serves the blob, with these answers in turn, and notes which first byte each request asked for.
    async fn serve(answers: Vec<Answer>) -> (String, Arc<Mutex<Vec<usize>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<usize>>> = Arc::default();
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut head = Vec::new();
                loop {
                    let mut line = String::new();
                    // Whoever tries it with TLS first says nothing that has a line's end.
                    match stream.read_line(&mut line).await {
                        Ok(2..) if line != "\r\n" => head.push(line.to_ascii_lowercase()),
                        _ => break,
                    }
                }
                let Some(first) = head.first() else { continue };
                if !first.contains("/blobs/") {
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                    continue;
                }
                let range = head.iter().find_map(|line| line.strip_prefix("range: bytes="));
                let from = range.map_or(0, |range| range.trim().trim_end_matches('-').parse().unwrap());
                noted.lock().unwrap().push(from);
                let rest = &CONTENT[from..];
                let (status, body, len) = match answers.next().unwrap_or(Answer::Status(500)) {
                    Answer::ButFor(count) => (206, rest[..rest.len() - count].to_vec(), rest.len()),
                    Answer::Whole => (200, CONTENT.to_vec(), CONTENT.len()),
                    Answer::Stall => (206, rest[..1].to_vec(), rest.len()),
                    Answer::More => (206, [rest, b"!"].concat(), rest.len() + 1),
                    Answer::Status(status) => (status, Vec::new(), 0),
                };
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
                if body.len() == 1 {
                    // Kept open, and silent.
                    tokio::spawn(async move {
                        sleep(Duration::from_secs(60)).await;
                        drop(stream);
                    });
                }
            }
        });
        (host, asked)
    }

    async fn pull(answers: Vec<Answer>, start: &[u8]) -> (Result<Vec<u8>, String>, Vec<usize>) {
        let (host, asked) = serve(answers).await;
        let reference = format!("{host}/x:1").parse().unwrap();
        let patience = Duration::from_millis(400);
        let registry = Registry::open(reference, None, Access::Pull, &Settings::default(), patience).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        std::fs::write(&path, start).unwrap();
        let digest = Digest::of(CONTENT);
        let pulled = registry.pull_to_file(&digest, CONTENT.len() as u64, &path, &mut |_| {}).await;
        let text = |error: RegistryError| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let asked = asked.lock().unwrap().clone();
        (pulled.map(|()| std::fs::read(&path).unwrap()).map_err(text), asked)
    }

    #[tokio::test]
    async fn a_download_goes_on_where_it_stopped() {
        let (pulled, asked) = pull(vec![Answer::ButFor(20), Answer::ButFor(5), Answer::ButFor(0)], b"").await;
        assert_eq!((pulled.unwrap().as_slice(), asked), (CONTENT, vec![0, 10, 25]));
        // So does one of an earlier process, if the server knows how.
        let (pulled, asked) = pull(vec![Answer::ButFor(0)], &CONTENT[..7]).await;
        assert_eq!((pulled.unwrap().as_slice(), asked), (CONTENT, vec![7]));
        let (pulled, asked) = pull(vec![Answer::Whole], &CONTENT[..7]).await;
        assert_eq!((pulled.unwrap().as_slice(), asked), (CONTENT, vec![7]));
        let (pulled, asked) = pull(vec![], CONTENT).await;
        assert_eq!((pulled.unwrap().as_slice(), asked), (CONTENT, vec![]));
    }

    #[tokio::test]
    async fn a_server_that_stalls_fails_or_lies_is_given_up() {
        // Each time a byte comes, so that it is asked again until all has come.
        let (pulled, asked) = pull(vec![Answer::Stall, Answer::Stall, Answer::ButFor(0)], b"").await;
        assert_eq!((pulled.unwrap().as_slice(), asked), (CONTENT, vec![0, 1, 2]));
        let (pulled, asked) = pull(vec![Answer::Status(503); 9], b"abc").await;
        let error = pulled.unwrap_err();
        assert!(error.contains("failed to pull sha256:") && error.contains("503"), "{error}");
        assert_eq!(asked, vec![3; MOST_ATTEMPTS as usize]);
        let (pulled, asked) = pull(vec![Answer::More], b"").await;
        let error = pulled.unwrap_err();
        assert!(error.contains(&format!("expected {} bytes, and more came", CONTENT.len())), "{error}");
        assert_eq!(asked.len(), 1);
        for (status, words) in [(404, "no such thing"), (401, "docker login")] {
            let (pulled, asked) = pull(vec![Answer::Status(status)], b"").await;
            let error = pulled.unwrap_err();
            assert!(error.contains(words), "{error}");
            assert_eq!(asked.len(), 1);
        }
    }
}
