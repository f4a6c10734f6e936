//! Downloads from a real HTTPS server on the loopback interface, which also behaves as servers should not.

#[path = "support/https_server.rs"]
mod https_server;

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use https_server::{Manners, Served, Server};
use quicksand_fetch::{
    Certificates, FileDigest, Settings, SettingsError,
    download::{Client, DownloadError, Store, Wanted},
};
use sha2::{Digest, Sha256, Sha512};

/// A directory, whose one lock is for all of its files.
struct Directory {
    directory: tempfile::TempDir,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Store for Directory {
    type Lock = tokio::sync::OwnedMutexGuard<()>;

    fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    async fn lock(&self, _name: &str) -> Result<Self::Lock, Box<dyn Error + Send + Sync>> {
        Ok(Arc::clone(&self.lock).lock_owned().await)
    }
}

struct Setting {
    server: Server,
    client: Client,
    store: Directory,
}

fn trusting(server: &Server) -> Settings {
    let path = server.certificate.path();
    let mut settings = Settings::default();
    settings.certificates = Some(Certificates::from_pem(path, std::fs::read(path).unwrap()));
    settings
}

fn setting() -> Setting {
    let server = Server::start();
    let store = Directory { directory: tempfile::tempdir().unwrap(), lock: Arc::default() };
    let mut settings = trusting(&server);
    settings.stall = Duration::from_millis(700);
    Setting { client: Client::new(&settings).unwrap(), server, store }
}

fn content() -> Vec<u8> {
    (0..1_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn sha256(bytes: &[u8]) -> FileDigest {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    FileDigest::of_digits(&digits).unwrap()
}

fn wanted(url: String, content: &[u8]) -> Wanted {
    Wanted { url, digest: sha256(content), size: Some(content.len() as u64), limit: 1 << 30, headers: Vec::new() }
}

/// What is left in the directory.
fn left(store: &Directory) -> Vec<String> {
    let entries = std::fs::read_dir(store.directory()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn fetch(setting: &Setting, wanted: Wanted) -> Result<std::path::PathBuf, DownloadError> {
    setting.client.file(&setting.store, wanted, |_, _, _| {}).await
}

#[tokio::test]
async fn a_file_is_fetched_once_and_shown_as_it_comes() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x.img", Served::bytes(content.clone()));
    type Seen = Vec<(&'static str, u64, u64)>;
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let reporter = {
        let seen = Arc::clone(&seen);
        move |stage, current, total| seen.lock().unwrap().push((stage, current, total))
    };
    let one = setting.client.file(&setting.store, wanted(url.clone(), &content), reporter.clone());
    let two = setting.client.file(&setting.store, wanted(url, &content), reporter);
    let (one, two) = tokio::join!(one, two);
    assert_eq!(std::fs::read(one.unwrap()).unwrap(), content);
    two.unwrap();
    assert_eq!(setting.server.requests("/x.img").len(), 1);
    assert_eq!(left(&setting.store), [sha256(&content).to_string().replace(':', "-")]);
    let seen = seen.lock().unwrap();
    let download: Vec<_> = seen.iter().filter(|(stage, ..)| *stage == "download").collect();
    assert!(download.len() > 2 && download.iter().all(|(.., total)| *total == 1_000_000));
    assert_eq!(download.last().unwrap().1, 1_000_000);
}

#[tokio::test]
async fn a_digest_may_be_a_sha512() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x", Served::bytes(content.clone()));
    let digits: String = Sha512::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut wanted = wanted(url, &content);
    wanted.digest = FileDigest::of_digits(&digits).unwrap();
    fetch(&setting, wanted).await.unwrap();
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_was() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x", Served::bytes(content.clone()).with(Manners::BreaksAfter(300_000)));
    let path = fetch(&setting, wanted(url, &content)).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
    let requests = setting.server.requests("/x");
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[0].headers.get("range"), None);
    let asked: Vec<_> = requests[1..].iter().map(|request| request.headers["range"].clone()).collect();
    assert_eq!(asked, ["bytes=300000-", "bytes=600000-", "bytes=900000-"]);
    assert!(requests[1..].iter().all(|request| request.headers["if-range"] == "\"1\""));
}

#[tokio::test]
async fn another_process_goes_on_where_one_was_stopped() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x", Served::bytes(content.clone()).with(Manners::StallsAfter(400_000)));
    let error = fetch(&setting, wanted(url.clone(), &content)).await.unwrap_err();
    // The first try brought something, the second stood still from its beginning.
    let DownloadError::Stalled { received, .. } = &error else { panic!("{error}") };
    assert_eq!(*received, 800_000);
    assert!(error.to_string().contains(&url), "{error}");
    assert!(left(&setting.store).iter().any(|name| name.ends_with(".part")));
    setting.server.serve("/x", Served::bytes(content.clone()));
    fetch(&setting, wanted(url, &content)).await.unwrap();
    assert_eq!(setting.server.requests("/x").last().unwrap().headers["range"], "bytes=800000-");
    assert_eq!(left(&setting.store).len(), 1);
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_fetched_from_its_beginning() {
    let setting = setting();
    let old = vec![7; 1_000_000];
    let url = setting.server.serve("/x", Served::bytes(old).with(Manners::StallsAfter(100_000)));
    let content = content();
    fetch(&setting, wanted(url.clone(), &content)).await.unwrap_err();
    let mut new = Served::bytes(content.clone());
    new.tag = Some("2".into());
    setting.server.serve("/x", new);
    let path = fetch(&setting, wanted(url, &content)).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
}

#[tokio::test]
async fn a_server_without_ranges_or_tags_or_lengths_serves_too() {
    let content = content();
    let mut tagless = Served::bytes(content.clone());
    tagless.tag = None;
    for served in [
        Served::bytes(content.clone()).with(Manners::NoRanges),
        Served::bytes(content.clone()).with(Manners::AnnouncesNothing),
        tagless,
    ] {
        let setting = setting();
        let stalling = Served { manners: Manners::StallsAfter(1000), ..served.clone() };
        let url = setting.server.serve("/x", stalling);
        fetch(&setting, wanted(url.clone(), &content)).await.unwrap_err();
        setting.server.serve("/x", served);
        let path = fetch(&setting, wanted(url, &content)).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content);
    }
}

#[tokio::test]
async fn a_wrong_digest_leaves_nothing() {
    let setting = setting();
    let url = setting.server.serve("/x", Served::bytes(vec![1; 1_000_000]));
    let content = content();
    let error = fetch(&setting, wanted(url.clone(), &content)).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, DownloadError::Digest { .. }), "{text}");
    for part in [&url, &sha256(&content).to_string(), &sha256(&vec![1; 1_000_000]).to_string()] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(left(&setting.store).is_empty());
}

#[tokio::test]
async fn lies_about_the_length_are_found_out() {
    let content = content();
    for (manners, size) in [
        (Manners::Announces(999_999), Some(1_000_000)),
        (Manners::Announces(2_000_000), Some(1_000_000)),
        (Manners::Announces(2_000_000), None),
        (Manners::Announces(500_000), None),
        (Manners::Announces(u64::MAX / 2), None),
    ] {
        let setting = setting();
        let url = setting.server.serve("/x", Served::bytes(content.clone()).with(manners.clone()));
        let error = fetch(&setting, Wanted { size, ..wanted(url.clone(), &content) }).await.unwrap_err();
        assert!(error.to_string().contains(&url), "{manners:?}: {error}");
        match (&manners, size) {
            (Manners::Announces(came), Some(expected)) => {
                let text = error.to_string();
                assert!(text.contains(&came.to_string()) && text.contains(&expected.to_string()), "{text}");
                assert!(left(&setting.store).is_empty());
            }
            (Manners::Announces(500_000), _) => assert!(matches!(error, DownloadError::Digest { .. }), "{error}"),
            (Manners::Announces(2_000_000), _) => assert!(matches!(error, DownloadError::Connection { .. }), "{error}"),
            _ => assert!(matches!(error, DownloadError::TooLarge { .. }), "{error}"),
        }
        assert!(left(&setting.store).iter().all(|name| name.ends_with(".part") || name.ends_with(".json")));
    }
}

#[tokio::test]
async fn a_server_that_gives_a_byte_now_and_then_gives_nothing() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x", Served::bytes(content.clone()).with(Manners::Trickles));
    let begun = Instant::now();
    let error = fetch(&setting, wanted(url, &content)).await.unwrap_err();
    assert!(matches!(error, DownloadError::Stalled { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn refusals_and_endless_redirects_are_told() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/missing", Served::bytes("").with(Manners::Status(404)));
    let error = fetch(&setting, wanted(url.clone(), &content)).await.unwrap_err();
    assert!(matches!(error, DownloadError::Status { status: 404, .. }), "{error}");
    assert_eq!(setting.server.requests("/missing").len(), 1);

    let busy = setting.server.serve("/busy", Served::bytes("").with(Manners::Status(503)));
    let error = fetch(&setting, wanted(busy, &content)).await.unwrap_err();
    assert!(error.to_string().contains("503") && error.to_string().contains("4 tries"), "{error}");

    let around = setting.server.url("/loop");
    setting.server.serve("/loop", Served::bytes("").with(Manners::RedirectsTo(around.clone())));
    let error = fetch(&setting, wanted(around, &content)).await.unwrap_err();
    assert!(matches!(error, DownloadError::Redirect { .. }), "{error}");

    let to = "http://127.0.0.1:9/x".to_owned();
    let plain = setting.server.serve("/plain", Served::bytes("").with(Manners::RedirectsTo(to)));
    let error = fetch(&setting, wanted(plain, &content)).await.unwrap_err();
    assert!(error.to_string().contains("without encryption"), "{error}");

    let there = setting.server.serve("/there", Served::bytes(content.clone()));
    let here = setting.server.serve("/here", Served::bytes("").with(Manners::RedirectsTo(there)));
    fetch(&setting, wanted(here, &content)).await.unwrap();
    assert!(left(&setting.store).iter().all(|name| !name.ends_with(".part")));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x", Served::bytes(content.clone()));
    let other = Server::start();
    let mut settings = trusting(&other);
    let stranger = Client::new(&settings).unwrap();
    let error = stranger.file(&setting.store, wanted(url, &content), |_, _, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    settings.certificates = Some(Certificates::from_pem(Path::new("/none.pem"), Vec::new()));
    let refused = Client::new(&settings).unwrap_err();
    assert!(matches!(refused, DownloadError::Settings(SettingsError::Certificates { .. })), "{refused}");
}

#[tokio::test]
async fn offline_nothing_is_fetched() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x", Served::bytes(content.clone()));
    let mut settings = Settings::default();
    settings.offline = true;
    let offline = Client::new(&settings).unwrap();
    let get = async || offline.file(&setting.store, wanted(url.clone(), &content), |_, _, _| {}).await;
    assert!(matches!(get().await.unwrap_err(), DownloadError::Offline { .. }));
    assert!(setting.server.requests("/x").is_empty());
    fetch(&setting, wanted(url.clone(), &content)).await.unwrap();
    get().await.unwrap();
}

#[tokio::test]
async fn giving_it_up_ends_it_and_the_next_one_goes_on() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x", Served::bytes(content.clone()).with(Manners::StallsAfter(200_000)));
    let given_up = tokio::time::timeout(Duration::from_millis(400), fetch(&setting, wanted(url.clone(), &content)));
    given_up.await.unwrap_err();
    setting.server.serve("/x", Served::bytes(content.clone()));
    let path = fetch(&setting, wanted(url, &content)).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content);
}

#[tokio::test]
async fn a_full_disk_is_told_before_and_while_it_fills() {
    let setting = setting();
    let content = content();
    let url = setting.server.serve("/x", Served::bytes(content.clone()).with(Manners::Announces(1 << 59)));
    let huge = Wanted { size: None, limit: u64::MAX, ..wanted(url, &content) };
    let error = fetch(&setting, huge).await.unwrap_err();
    assert!(matches!(error, DownloadError::NoSpace { .. }), "{error}");
    assert!(left(&setting.store).is_empty());
    // /dev/full takes nothing.
    let url = setting.server.serve("/x", Served::bytes(content.clone()));
    let wanted = wanted(url, &content);
    let part = setting.store.directory().join(format!("{}.part", sha256(&content).to_string().replace(':', "-")));
    std::os::unix::fs::symlink(Path::new("/dev/full"), &part).unwrap();
    let error = fetch(&setting, wanted).await.unwrap_err();
    assert!(matches!(error, DownloadError::NoSpace { .. } | DownloadError::File { .. }), "{error}");
    assert!(left(&setting.store).is_empty(), "{:?}", left(&setting.store));
}

#[tokio::test]
async fn small_answers_are_read_whatever_their_status() {
    let setting = setting();
    let url = setting.server.serve("/SHA256SUMS", Served::bytes("abc"));
    let answer = setting.client.get(&url, &[], 1000).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice(), answer.header("etag")), (200, &b"abc"[..], Some("\"1\"")));
    let error = setting.client.get(&url, &[], 2).await.unwrap_err();
    assert!(matches!(error, DownloadError::TooLarge { .. }), "{error}");
    let headers = [("Authorization".to_owned(), "Bearer x".to_owned())];
    let missing = setting.client.get(&setting.server.url("/missing"), &headers, 1000).await.unwrap();
    assert_eq!(missing.status, 404);
    assert_eq!(setting.server.requests("/missing")[0].headers["authorization"], "Bearer x");
}
