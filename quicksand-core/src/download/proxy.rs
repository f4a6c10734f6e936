//! Which proxy a URL is asked for through, as the environment says: `https_proxy` or `http_proxy` by the URL's own scheme, else
//! `all_proxy`, and none for the hosts of `no_proxy`. Each may be written in upper case, too.

use std::env;

use ureq::Proxy;

use super::DownloadError;

/// The proxies of the environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    /// Hosts that are asked without.
    exempt: Vec<String>,
}

impl Proxies {
    /// # Errors
    ///
    /// [`DownloadError::Proxy`]: what means nothing is not passed over, as that would go past a proxy that was meant.
    pub(super) fn from_environment() -> Result<Proxies, DownloadError> {
        let read = |name: &str| env::var(name).ok();
        Proxies::read(&|name| read(name).or_else(|| read(&name.to_uppercase())).filter(|value| !value.is_empty()))
    }

    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Proxies, DownloadError> {
        let proxy = |name: &'static str| {
            let named = |name: &'static str| variable(name).map(|value| (name, value));
            let Some((name, value)) = named(name).or_else(|| named("all_proxy")) else { return Ok(None) };
            // Not shown, since a password may be in it.
            Proxy::new(&value).map(Some).map_err(|error| DownloadError::Proxy { name, why: error.to_string() })
        };
        let exempt = variable("no_proxy").unwrap_or_default();
        let exempt = exempt.split([',', ' ']).map(|host| host.trim().to_lowercase()).filter(|host| !host.is_empty());
        Ok(Proxies { https: proxy("https_proxy")?, http: proxy("http_proxy")?, exempt: exempt.collect() })
    }

    /// That of a URL.
    pub(super) fn of(&self, url: &str) -> Option<Proxy> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit('@').next().unwrap_or_default().to_lowercase();
        // An IPv6 address has colons of its own, in brackets.
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        if self.exempt.iter().any(|exempt| covers(exempt, host, &authority)) {
            return None;
        }
        if scheme == "https" { self.https.clone() } else { self.http.clone() }
    }
}

/// Whether an entry of `no_proxy` is that host, or a domain that it is in.
fn covers(entry: &str, host: &str, with_port: &str) -> bool {
    let domain = entry.trim_start_matches('*').trim_start_matches('.');
    if domain.is_empty() {
        return entry == "*";
    }
    domain == host || entry == with_port || host.strip_suffix(domain).is_some_and(|below| below.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, DownloadError> {
        Proxies::read(&|name| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned()))
    }

    fn host(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of(url).map(|proxy| proxy.host().to_owned())
    }

    #[test]
    fn a_scheme_has_its_own_proxy() {
        let both =
            proxies(&[("https_proxy", "http://s:1"), ("http_proxy", "p:2"), ("all_proxy", "http://a:3")]).unwrap();
        assert_eq!(host(&both, "https://x/y").as_deref(), Some("s"));
        assert_eq!(host(&both, "http://x/y").as_deref(), Some("p"));
        let only_http = proxies(&[("http_proxy", "http://p:2")]).unwrap();
        assert_eq!(host(&only_http, "https://x/y"), None);
        let all = proxies(&[("all_proxy", "http://a:3")]).unwrap();
        assert_eq!(host(&all, "https://x/y").as_deref(), Some("a"));
        let error = proxies(&[("https_proxy", "gopher://user:secret@x")]).unwrap_err().to_string();
        assert!(error.contains("https_proxy") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn hosts_are_exempt_with_their_subdomains() {
        let some = [("all_proxy", "http://a:3"), ("no_proxy", "example.org, .inner ,10.0.0.1,::1,h:8443,*.w")];
        let some = proxies(&some).unwrap();
        for url in [
            "https://example.org/",
            "https://A.Example.org:444/x",
            "https://x.inner",
            "https://user@10.0.0.1/",
            "https://[::1]:5000/v2/",
            "https://h:8443/",
            "https://x.w/",
        ] {
            assert_eq!(host(&some, url), None, "{url}");
        }
        for url in ["https://notexample.org/", "https://example.org.evil/", "https://10.0.0.11/", "https://h/"] {
            assert!(host(&some, url).is_some(), "{url}");
        }
        let none = proxies(&[("all_proxy", "http://a:3"), ("no_proxy", "*")]).unwrap();
        assert_eq!(host(&none, "https://x/"), None);
    }
}
