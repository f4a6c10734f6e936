//! One file's way into the directory, on a thread of its own.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use ureq::{Agent, Body, Proxy, http::Response};

use super::{Answer, DownloadError, Report, STAGE, Wanted};

/// How often a broken connection is made again, unless something came in between.
const TRIES: u32 = 4;
/// So many bytes are enough of something.
const PROGRESS: u64 = 1 << 20;
/// Before another try, longer each time.
const PAUSE: Duration = Duration::from_millis(500);
/// A server that gives less than this in [`SLOW_WINDOW`] gives nothing, however often it sends a byte.
const SLOW: u64 = 16 << 10;
const SLOW_WINDOW: u32 = 4;

/// A download under way.
pub(super) struct Transfer {
    pub(super) agent: Agent,
    pub(super) proxy: Option<Proxy>,
    pub(super) wanted: Wanted,
    /// What the file is to be.
    pub(super) path: PathBuf,
    pub(super) given_up: Arc<AtomicBool>,
    pub(super) stall: Duration,
    pub(super) report: Report,
}

/// What the server said of the file that there is a part of.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    url: String,
    /// What tells this version of the file from others: an entity tag or a date.
    validator: Option<String>,
}

/// Why one try ended.
enum Broken {
    /// Another may do better.
    Again {
        what: String,
    },
    Stalled(Duration),
    /// None would.
    Final(DownloadError),
}

impl From<DownloadError> for Broken {
    fn from(error: DownloadError) -> Broken {
        Broken::Final(error)
    }
}

impl Transfer {
    pub(super) fn run(self) -> Result<PathBuf, DownloadError> {
        let part = with_ending(&self.path, "part");
        let known = with_ending(&self.path, "json");
        let mut tries = 0;
        let mut resumed = len(&part) > 0;
        loop {
            let before = len(&part);
            let done = self.attempt(&part, &known);
            if len(&part) >= before + PROGRESS {
                tries = 0;
            }
            tries += 1;
            match done {
                Ok(()) => match self.verify(&part) {
                    Ok(()) => break,
                    Err(error) => {
                        remove(&part, &known);
                        // The part that was there may be of another version of the file: once more, from its beginning.
                        if !std::mem::take(&mut resumed) || matches!(error, DownloadError::File { .. }) {
                            return Err(error);
                        }
                        tries = 0;
                    }
                },
                Err(Broken::Final(error)) => {
                    if matches!(error, DownloadError::NoSpace { .. } | DownloadError::Size { .. }) {
                        remove(&part, &known);
                    }
                    return Err(error);
                }
                Err(Broken::Stalled(waited)) if tries >= 2 => {
                    return Err(DownloadError::Stalled { url: self.url(), received: len(&part), waited });
                }
                Err(Broken::Again { what }) if tries >= TRIES => {
                    return Err(DownloadError::Connection { url: self.url(), what, tries });
                }
                Err(Broken::Stalled(_)) => resumed = true,
                Err(Broken::Again { what }) => {
                    tracing::debug!(target: "quicksand::download", url = self.wanted.url, what, "once more");
                    resumed = true;
                    thread::sleep(PAUSE * tries);
                }
            }
        }
        let finish = || {
            File::open(&part)?.sync_all()?;
            fs::rename(&part, &self.path)
        };
        finish().map_err(self.file_error("keep", &self.path))?;
        let _ = fs::remove_file(&known);
        Ok(self.path)
    }

    fn url(&self) -> String {
        self.wanted.url.clone()
    }

    fn file_error<'a>(&'a self, what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DownloadError + 'a {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                DownloadError::NoSpace { url: self.url(), path: path.to_owned(), needed: self.wanted.size.unwrap_or(0) }
            }
            _ => DownloadError::File { url: self.url(), what, path: path.to_owned(), source },
        }
    }

    /// Fetches what is missing.
    fn attempt(&self, part: &Path, known: &Path) -> Result<(), Broken> {
        let kept: Known = fs::read(known).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let mut offset = if kept.url == self.wanted.url { len(part) } else { 0 };
        if offset > 0 && self.wanted.size == Some(offset) {
            return Ok(());
        }
        let mut request = self.agent.get(&self.wanted.url);
        for (name, value) in &self.wanted.headers {
            request = request.header(name, value);
        }
        if let (1.., Some(validator)) = (offset, &kept.validator) {
            // The rest, if it is the rest of the same; else all of it.
            request = request.header("Range", format!("bytes={offset}-")).header("If-Range", validator);
        } else {
            offset = 0;
        }
        let https_only = self.wanted.url.starts_with("https:");
        let request = request.config().proxy(self.proxy.clone()).https_only(https_only).build();
        let response = request.call().map_err(|error| self.broken(error))?;
        let status = response.status().as_u16();
        let total = match status {
            200 => {
                offset = 0;
                length(&response)
            }
            206 => {
                let (start, total) = content_range(&response).ok_or_else(|| Broken::Again {
                    what: "the server sent a part of the file and did not say which".into(),
                })?;
                if start != offset {
                    let _ = fs::remove_file(part);
                    let what = "the server sent another part of the file than it was asked for".into();
                    return Err(Broken::Again { what });
                }
                Some(total)
            }
            // The part is no part of what there is now.
            416 => {
                let _ = fs::remove_file(part);
                return Err(Broken::Again { what: "the server has less than was there already".into() });
            }
            408 | 425 | 429 | 500..=599 => {
                return Err(Broken::Again { what: format!("the server answered {status}") });
            }
            _ => return Err(DownloadError::Status { url: self.url(), status }.into()),
        };
        self.check_size(total)?;
        let known_now = Known { url: self.url(), validator: validator(&response) };
        let json = serde_json::to_vec(&known_now).unwrap_or_default();
        fs::write(known, json).map_err(self.file_error("write", known))?;
        self.receive(response, part, offset, total)
    }

    /// Compares what the server announces with what is to come, before anything does.
    fn check_size(&self, total: Option<u64>) -> Result<(), DownloadError> {
        let url = self.url();
        match (total, self.wanted.size) {
            (Some(came), Some(expected)) if came != expected => Err(DownloadError::Size { url, expected, came }),
            (Some(came), _) if came > self.wanted.limit => {
                Err(DownloadError::TooLarge { url, limit: self.wanted.limit })
            }
            (Some(needed), _) => {
                let parent = self.path.parent().unwrap_or(Path::new("/"));
                let missing = needed.saturating_sub(len(&with_ending(&self.path, "part")));
                let free = statvfs(parent).map(|space| space.blocks_available().saturating_mul(space.fragment_size()));
                match free {
                    Ok(free) if free < missing => Err(DownloadError::NoSpace { url, path: self.path.clone(), needed }),
                    _ => Ok(()),
                }
            }
            (None, _) => Ok(()),
        }
    }

    fn receive(&self, response: Response<Body>, part: &Path, offset: u64, total: Option<u64>) -> Result<(), Broken> {
        let mut file = File::options().create(true).append(true).open(part).map_err(self.file_error("write", part))?;
        // Whatever is there beyond it is of another try.
        if len(part) != offset {
            file.set_len(offset).map_err(self.file_error("write", part))?;
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let expected = total.or(self.wanted.size);
        let shown = expected.unwrap_or(0);
        let mut current = offset;
        let mut buffer = vec![0; 256 << 10];
        let (mut window, mut in_window) = (Instant::now(), current);
        (self.report)(STAGE, current, shown);
        loop {
            if self.given_up.load(Ordering::Relaxed) {
                return Err(DownloadError::GivenUp { url: self.url() }.into());
            }
            let count = body.read(&mut buffer).map_err(|error| self.broken_read(error))?;
            if count == 0 {
                break;
            }
            current += count as u64;
            if current > expected.unwrap_or(self.wanted.limit) {
                let url = self.url();
                return Err(match expected {
                    Some(expected) => DownloadError::Size { url, expected, came: current },
                    None => DownloadError::TooLarge { url, limit: self.wanted.limit },
                }
                .into());
            }
            file.write_all(&buffer[..count]).map_err(self.file_error("write", part))?;
            (self.report)(STAGE, current, shown);
            if window.elapsed() > self.stall * SLOW_WINDOW {
                if current - in_window < SLOW {
                    return Err(Broken::Stalled(window.elapsed()));
                }
                (window, in_window) = (Instant::now(), current);
            }
        }
        match expected {
            Some(expected) if current < expected => {
                let what = format!("expected {expected} bytes, and the connection ended after {current}");
                Err(Broken::Again { what })
            }
            _ => {
                (self.report)(STAGE, current, current);
                Ok(())
            }
        }
    }

    fn verify(&self, part: &Path) -> Result<(), DownloadError> {
        let mut hasher = self.wanted.digest.hasher();
        let mut read = || {
            let mut file = File::open(part)?;
            let total = file.metadata()?.len();
            let mut buffer = vec![0; 1 << 20];
            let mut current = 0;
            loop {
                let count = file.read(&mut buffer)?;
                (self.report)("verify", current, total);
                if count == 0 {
                    return Ok(());
                }
                hasher.update(&buffer[..count]);
                current += count as u64;
            }
        };
        read().map_err(self.file_error("read", part))?;
        let (expected, came) = (self.wanted.digest.clone(), hasher.finish());
        if came == expected { Ok(()) } else { Err(DownloadError::Digest { url: self.url(), expected, came }) }
    }

    fn broken(&self, error: ureq::Error) -> Broken {
        broken(&self.wanted.url, error, self.stall)
    }

    fn broken_read(&self, error: io::Error) -> Broken {
        match ureq::Error::from(error) {
            // Of a server that closes the connection before all that it announced is there.
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Broken::Again { what: "the connection ended before the file did".into() }
            }
            error => self.broken(error),
        }
    }
}

/// A question to a server.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) agent: Agent,
    pub(super) proxy: Option<Proxy>,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    /// The most bytes that the answer may have.
    pub(super) limit: u64,
    pub(super) stall: Duration,
}

/// What a URL answers.
pub(super) fn get(ask: &Ask) -> Result<Answer, DownloadError> {
    let url = || ask.url.clone();
    let mut tries = 0;
    loop {
        tries += 1;
        match get_once(ask) {
            Ok(answer) if answer.status < 500 || tries >= TRIES => return Ok(answer),
            Ok(_) => {}
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::Stalled(waited)) if tries >= 2 => {
                return Err(DownloadError::Stalled { url: url(), received: 0, waited });
            }
            Err(Broken::Again { what }) if tries >= TRIES => {
                return Err(DownloadError::Connection { url: url(), what, tries });
            }
            Err(_) => {}
        }
        thread::sleep(PAUSE * tries);
    }
}

fn get_once(Ask { agent, proxy, url, headers, limit, stall }: &Ask) -> Result<Answer, Broken> {
    let (limit, stall) = (*limit, *stall);
    let mut request = agent.get(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.config().proxy(proxy.clone()).https_only(url.starts_with("https:")).build();
    let response = request.call().map_err(|error| broken(url, error, stall))?;
    let status = response.status().as_u16();
    let text = |value: &ureq::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let mut body = Vec::new();
    let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader().take(limit + 1);
    reader.read_to_end(&mut body).map_err(|error| broken(url, ureq::Error::from(error), stall))?;
    if body.len() as u64 > limit {
        return Err(DownloadError::TooLarge { url: url.clone(), limit }.into());
    }
    Ok(Answer { status, headers, body })
}

fn broken(url: &str, error: ureq::Error, stall: Duration) -> Broken {
    let url = url.to_owned();
    match error {
        ureq::Error::TooManyRedirects => {
            DownloadError::Redirect { url, why: "the server leads elsewhere, again and again" }.into()
        }
        ureq::Error::RedirectFailed => DownloadError::Redirect { url, why: "the server leads to nowhere" }.into(),
        ureq::Error::RequireHttpsOnly(_) => {
            DownloadError::Redirect { url, why: "the server leads to an address without encryption" }.into()
        }
        ureq::Error::Timeout(ureq::Timeout::PerRead | ureq::Timeout::RecvResponse | ureq::Timeout::RecvBody) => {
            Broken::Stalled(stall)
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
            DownloadError::Connection { url, what: error.to_string(), tries: 1 }.into()
        }
        ureq::Error::Io(error) => Broken::Again { what: format!("the connection failed: {error}") },
        error => Broken::Again { what: error.to_string() },
    }
}

fn length(response: &Response<Body>) -> Option<u64> {
    response.headers().get("content-length")?.to_str().ok()?.trim().parse().ok()
}

/// The first byte and the file's size of `bytes 5-9/10`.
fn content_range(response: &Response<Body>) -> Option<(u64, u64)> {
    let text = response.headers().get("content-range")?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// What an If-Range takes: an entity tag that is not weak, else a date.
fn validator(response: &Response<Body>) -> Option<String> {
    let header = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    header("etag").filter(|tag| tag.starts_with('"')).or_else(|| header("last-modified"))
}

fn len(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

fn remove(part: &Path, known: &Path) {
    let _ = fs::remove_file(part);
    let _ = fs::remove_file(known);
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
