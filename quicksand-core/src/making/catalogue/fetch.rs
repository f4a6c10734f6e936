//! Publishers' cloud images: which there is now, and its way into the cache.

use std::{collections::BTreeMap, future::Future, path::PathBuf, pin::Pin};

use quicksand_fetch::{
    FileDigest,
    download::{Client, DownloadError, Wanted},
};
use quicksand_protocol::kernel::compare;

use super::{
    Cloud,
    checksums::{digits_of, fits, listed},
    signature::{self, Keys, Signature, Trust, Verdict},
};
use crate::{
    base::{blocking::blocking, cache::Cache, environment::Environment, fetching, progress::Reporter},
    image::{error::ImageError, project::Project},
};

/// The most that a listing or a list of digests has, in bytes.
const LARGEST_LIST: u64 = 8 << 20;
/// The most that an image has, in bytes.
const LARGEST_IMAGE: u64 = 64 << 30;
/// How many directories that fit are looked into: the newest may be there before its images are.
const CANDIDATES: usize = 3;

/// A cloud image of a publisher's, once it is known which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// At the publisher's, also where a mirror told.
    pub(crate) url: String,
    pub(crate) digest: FileDigest,
}

/// What was found, and why its digest is believed.
pub(crate) type Believed = (Found, Trust);

/// What asks publishers and their mirror.
#[derive(Debug)]
pub(crate) struct Publishers {
    client: Client,
    mirror: Option<String>,
    /// The user's keys of publishers, by family.
    keyrings: BTreeMap<String, Keys>,
}

impl Publishers {
    /// As the environment and the project say.
    pub(crate) fn new(environment: &Environment, project: Option<&Project>) -> Result<Publishers, ImageError> {
        let settings = fetching::settings(environment).map_err(DownloadError::from)?;
        let config = project.map(Project::config).transpose()?.map(|config| config.images).unwrap_or_default();
        let at = |path: PathBuf| project.map_or(path.clone(), |project| project.root().join(path));
        let keyrings = config.keyrings.into_iter().map(|(family, path)| (family, Keys::named(at(path)))).collect();
        let mirror = environment.mirror.clone().or(config.mirror);
        Ok(Publishers { client: Client::new(&settings)?, mirror, keyrings })
    }

    /// Where to ask for a publisher's URL. On a mirror it is below the publisher's name.
    fn addresses(&self, url: &str) -> Vec<String> {
        let on_mirror =
            |mirror: &String| Some(format!("{}/{}", mirror.trim_end_matches('/'), url.split_once("://")?.1));
        self.mirror.iter().filter_map(on_mirror).chain([url.to_owned()]).collect()
    }

    /// A text at a URL.
    async fn text(&self, url: &str) -> Result<String, DownloadError> {
        Ok(String::from_utf8_lossy(&self.bytes(url).await?).into_owned())
    }

    async fn bytes(&self, url: &str) -> Result<Vec<u8>, DownloadError> {
        let mut failure = None;
        for address in self.addresses(url) {
            let error = match self.client.get(&address, &[], LARGEST_LIST).await {
                Ok(answer) if answer.status == 200 => return Ok(answer.body),
                Ok(answer) => DownloadError::Status { url: address, status: answer.status },
                Err(error) => error,
            };
            // What the mirror says comes first: it was asked for by name.
            failure.get_or_insert(error);
        }
        Err(failure.unwrap_or_else(|| DownloadError::Offline { url: url.to_owned() }))
    }

    /// Which image a publisher has now, and why its digest is believed.
    pub(crate) async fn find(&self, cloud: &Cloud<String>) -> Result<Believed, ImageError> {
        let (scheme, rest) = cloud.directory.split_once("://").unwrap_or(("https", &cloud.directory));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        self.below(format!("{scheme}://{host}/"), &parts, cloud).await
    }

    /// Goes down the parts of a path, in which patterns stand for the newest that fits.
    // Boxed, since it calls itself.
    fn below<'a>(
        &'a self,
        at: String,
        parts: &'a [&'a str],
        cloud: &'a Cloud<String>,
    ) -> Pin<Box<dyn Future<Output = Result<Believed, ImageError>> + Send + 'a>> {
        Box::pin(async move {
            let Some((part, rest)) = parts.split_first() else { return self.in_directory(&at, cloud).await };
            if !part.contains('*') {
                return self.below(format!("{at}{part}/"), rest, cloud).await;
            }
            let candidates = self.newest(&at, &format!("{part}/")).await?;
            let mut failure = None;
            for name in candidates.iter().take(CANDIDATES) {
                match self.below(format!("{at}{name}"), rest, cloud).await {
                    Ok(found) => return Ok(found),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            Err(failure.unwrap_or(ImageError::NothingListed { url: at, pattern: (*part).to_owned() }))
        })
    }

    async fn in_directory(&self, directory: &str, cloud: &Cloud<String>) -> Result<Believed, ImageError> {
        let file = self.one(directory, &cloud.file).await?;
        let list = self.one(directory, &cloud.checksums.replace("{file}", &file)).await?;
        let list = format!("{directory}{list}");
        let (text, trust) = self.trusted(&list, cloud).await?;
        let digits =
            digits_of(&text, &file).ok_or_else(|| ImageError::NoDigest { url: list.clone(), file: file.clone() })?;
        let digest =
            FileDigest::of_digits(digits).map_err(|_| ImageError::NoDigest { url: list, file: file.clone() })?;
        Ok((Found { url: format!("{directory}{file}"), digest }, trust))
    }

    /// A list of digests, and why it is believed.
    async fn trusted(&self, url: &str, cloud: &Cloud<String>) -> Result<(String, Trust), ImageError> {
        let text = self.text(url).await?;
        let keys = self.keyrings.get(cloud.family).cloned().or_else(|| Keys::of_this_host(cloud.family));
        let Some(keys) = keys else { return Ok((text, Trust::Tls)) };
        let doubt = |why: String| match keys.demanded {
            true => Err(ImageError::Signature { url: url.to_owned(), why }),
            false => {
                tracing::warn!(target: "quicksand::image", url, why, "a publisher's list is believed by its connection alone");
                Ok(Trust::Tls)
            }
        };
        let signature = match cloud.signature {
            Signature::None => {
                let why = format!("the publisher signs no list of its images; remove {} from keyrings", cloud.family);
                return Ok((text, doubt(why)?));
            }
            Signature::Inside => None,
            Signature::Beside(ends) => {
                let mut found = None;
                for end in ends {
                    if found.is_none() {
                        found = self.bytes(&format!("{url}{end}")).await.ok();
                    }
                }
                if found.is_none() {
                    let names: Vec<_> = ends.iter().map(|end| format!("{url}{end}")).collect();
                    return Ok((text, doubt(format!("there is no {}", names.join(" and no ")))?));
                }
                found
            }
        };
        let (own, list) = (keys.clone(), text.clone());
        match blocking(move || signature::check(&own, &list, signature.as_deref())).await {
            Ok(Verdict::Good(fingerprint, signed)) => Ok((signed.unwrap_or(text), Trust::Signed(fingerprint))),
            Ok(Verdict::OtherKey(key)) => {
                let why = format!("it is signed by the key {key}, which is not in the file that quicksand.toml names");
                Ok((text, doubt(why)?))
            }
            // Whoever named the keys: this is not what the publisher wrote.
            Ok(Verdict::Bad(said)) => Err(ImageError::Signature { url: url.to_owned(), why: said }),
            Err(error @ ImageError::MissingTool { .. }) if !keys.demanded => Ok((text, doubt(error.to_string())?)),
            Err(error) => Err(error),
        }
    }

    async fn one(&self, directory: &str, pattern: &str) -> Result<String, ImageError> {
        if !pattern.contains('*') {
            return Ok(pattern.to_owned());
        }
        let nothing = || ImageError::NothingListed { url: directory.to_owned(), pattern: pattern.to_owned() };
        self.newest(directory, pattern).await?.into_iter().next().ok_or_else(nothing)
    }

    /// The names in a directory that fit, the newest first.
    async fn newest(&self, directory: &str, pattern: &str) -> Result<Vec<String>, ImageError> {
        let mut names = listed(&self.text(directory).await?);
        names.retain(|name| fits(pattern, name));
        names.sort_by(|one, other| compare(other, one));
        names.dedup();
        Ok(names)
    }

    /// The image's file in the cache, verified.
    pub(crate) async fn fetch(
        &self,
        cache: &Cache,
        found: &Found,
        reporter: &Reporter,
    ) -> Result<std::path::PathBuf, ImageError> {
        let mut failure: Option<DownloadError> = None;
        for url in self.addresses(&found.url) {
            let digest = found.digest.clone();
            let wanted = Wanted { url, digest, size: None, limit: LARGEST_IMAGE, headers: Vec::new() };
            match self.client.file(cache, wanted, fetching::report(reporter)).await {
                Ok(path) => return Ok(path),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| DownloadError::Offline { url: found.url.clone() }).into())
    }
}

#[cfg(test)]
impl Publishers {
    /// What asks without a mirror, with these keys of Ubuntu's.
    pub(crate) fn of_test(client: Client, keys: Option<Keys>) -> Publishers {
        let keyrings = keys.map(|keys| ("ubuntu".to_owned(), keys)).into_iter().collect();
        Publishers { client, mirror: None, keyrings }
    }
}
