//! Which proxy a URL is asked for through: that of `https_proxy` or `http_proxy` by the URL's own scheme, else that of `all_proxy`, and none
//! for the hosts of `no_proxy`. Each variable may be written in upper case, too.

use std::fmt;

use crate::SettingsError;

/// The proxies through which servers are reached. By default there are none.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Choice<ProxyUrl>);

/// A proxy of each scheme.
#[derive(Debug, Clone)]
pub(crate) struct Choice<P> {
    https: Option<P>,
    http: Option<P>,
    /// Hosts that are reached without one.
    exempt: Vec<String>,
}

impl<P> Default for Choice<P> {
    fn default() -> Choice<P> {
        Choice { https: None, http: None, exempt: Vec::new() }
    }
}

/// A URL of a proxy, not checked yet.
#[derive(Clone)]
pub(crate) struct ProxyUrl {
    /// The variable that has it, in lower case.
    pub(crate) name: &'static str,
    pub(crate) url: String,
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password may be in the URL.
        f.debug_struct("ProxyUrl").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Proxies {
    /// The proxies that variables name. `variable` looks one up: each name is asked for in lower case first, then in upper case.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let read = |name: &str| set(name).or_else(|| set(&name.to_uppercase()));
        let named = |name| Some(ProxyUrl { name, url: read(name)? });
        let proxy = |name| named(name).or_else(|| named("all_proxy"));
        let exempt = read("no_proxy").unwrap_or_default();
        let exempt = exempt.split([',', ' ']).map(|host| host.trim().to_lowercase()).filter(|host| !host.is_empty());
        Proxies(Choice { https: proxy("https_proxy"), http: proxy("http_proxy"), exempt: exempt.collect() })
    }

    /// The same, as a client takes them.
    ///
    /// # Errors
    ///
    /// That of `parse`: a value that means nothing is not passed over, since that would go past a proxy that was meant.
    pub(crate) fn parsed<P>(&self, parse: impl Fn(&str) -> Result<P, String>) -> Result<Choice<P>, SettingsError> {
        let Choice { https, http, exempt } = &self.0;
        let parse = |ProxyUrl { name, url }: &ProxyUrl| parse(url).map_err(|why| SettingsError::Proxy { name, why });
        Ok(Choice {
            https: https.as_ref().map(parse).transpose()?,
            http: http.as_ref().map(parse).transpose()?,
            exempt: exempt.clone(),
        })
    }
}

impl<P> Choice<P> {
    /// That of a URL.
    pub(crate) fn of(&self, url: &str) -> Option<&P> {
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
        if scheme == "https" { self.https.as_ref() } else { self.http.as_ref() }
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

    fn proxies(variables: &[(&str, &str)]) -> Choice<String> {
        let value = |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
        Proxies::from_variables(value).parsed(|url| Ok(url.to_owned())).unwrap()
    }

    fn of<'a>(proxies: &'a Choice<String>, url: &str) -> Option<&'a str> {
        proxies.of(url).map(String::as_str)
    }

    #[test]
    fn a_scheme_has_its_own_proxy() {
        let both = proxies(&[("https_proxy", "http://s:1"), ("HTTP_PROXY", "p:2"), ("all_proxy", "http://a:3")]);
        assert_eq!(of(&both, "https://x/y"), Some("http://s:1"));
        assert_eq!(of(&both, "http://x/y"), Some("p:2"));
        let only_http = proxies(&[("http_proxy", "http://p:2"), ("HTTP_PROXY", "other"), ("https_proxy", "")]);
        assert_eq!((of(&only_http, "https://x/y"), of(&only_http, "http://x")), (None, Some("http://p:2")));
        let all = proxies(&[("ALL_PROXY", "http://a:3")]);
        assert_eq!(of(&all, "https://x/y"), Some("http://a:3"));
    }

    #[test]
    fn a_proxy_that_is_none_is_told_without_its_password() {
        let wrong = Proxies::from_variables(|name| (name == "all_proxy").then(|| "gopher://user:secret@x".to_owned()));
        assert!(!format!("{wrong:?}").contains("secret"));
        let error = wrong.parsed::<()>(|_| Err("it is none".to_owned())).unwrap_err().to_string();
        assert_eq!(error, "failed to connect as all_proxy says: it is none; write http://HOST:PORT");
    }

    #[test]
    fn hosts_are_exempt_with_their_subdomains() {
        let some = [("all_proxy", "http://a:3"), ("no_proxy", "example.org, .inner ,10.0.0.1,::1,h:8443,*.w")];
        let some = proxies(&some);
        for url in [
            "https://example.org/",
            "https://A.Example.org:444/x",
            "https://x.inner",
            "https://user@10.0.0.1/",
            "https://[::1]:5000/v2/",
            "https://h:8443/",
            "https://x.w/",
        ] {
            assert_eq!(of(&some, url), None, "{url}");
        }
        for url in ["https://notexample.org/", "https://example.org.evil/", "https://10.0.0.11/", "https://h/"] {
            assert!(of(&some, url).is_some(), "{url}");
        }
        let none = proxies(&[("all_proxy", "http://a:3"), ("no_proxy", "*")]);
        assert_eq!(of(&none, "https://x/"), None);
    }
}
