//! Downloads by HTTP, each on a thread of its own.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ureq::{
    Agent, Proxy,
    tls::{Certificate, PemItem, RootCerts, TlsConfig},
};

use super::{
    Answer, DownloadError, Report, Wanted,
    transfer::{self, Transfer},
};
use crate::{Certificates, Settings, proxies::Choice};

const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
const MOST_REDIRECTS: u32 = 8;

/// A client of HTTP.
#[derive(Debug, Clone)]
pub(super) struct Http {
    agent: Agent,
    proxies: Choice<Proxy>,
    stall: Duration,
}

impl Http {
    pub(super) fn new(settings: &Settings) -> Result<Http, DownloadError> {
        let certificates = Certificates::trusted(settings.certificates.as_ref(), parse)?;
        // Those that Mozilla trusts, on a system that keeps none.
        let roots = if certificates.is_empty() { RootCerts::WebPki } else { certificates.into() };
        let agent = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .http_status_as_error(false)
            // Each request has its own.
            .proxy(None)
            .user_agent(concat!("quicksand/", env!("CARGO_PKG_VERSION")))
            // What is fetched is to arrive as it is.
            .accept_encoding("identity")
            .max_redirects(MOST_REDIRECTS)
            .timeout_resolve(Some(CONNECT_PATIENCE))
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_per_read(Some(settings.stall))
            .timeout_per_write(Some(settings.stall))
            .timeout_recv_response(Some(settings.stall * 2))
            .build()
            .into();
        let proxies = settings.proxies.parsed(|url| Proxy::new(url).map_err(|error| error.to_string()))?;
        Ok(Http { agent, proxies, stall: settings.stall })
    }

    /// Downloads a file to a path, under its lock.
    pub(super) async fn file(&self, wanted: Wanted, path: PathBuf, report: Report) -> Result<PathBuf, DownloadError> {
        let given_up = GivenUp::default();
        let transfer = Transfer {
            agent: self.agent.clone(),
            proxy: self.proxies.of(&wanted.url).cloned(),
            wanted,
            path,
            given_up: Arc::clone(&given_up.0),
            stall: self.stall,
            report,
        };
        on_a_thread(move || transfer.run()).await
    }

    pub(super) async fn get(
        &self,
        url: &str,
        headers: &[(String, String)],
        limit: u64,
    ) -> Result<Answer, DownloadError> {
        let ask = transfer::Ask {
            agent: self.agent.clone(),
            proxy: self.proxies.of(url).cloned(),
            url: url.to_owned(),
            headers: headers.to_vec(),
            limit,
            stall: self.stall,
        };
        on_a_thread(move || transfer::get(&ask)).await
    }
}

/// Tells the thread of a download that nobody waits for it any more.
#[derive(Debug, Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(DownloadError::GivenUp { url: "a file".to_owned() }),
        },
    }
}

fn parse(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let items = ureq::tls::parse_pem(pem).map(|item| item.map_err(|error| error.to_string()));
    let certificates = items.filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    certificates.collect()
}
