//! What stands in for HTTP where the feature `download` is missing.

use std::path::PathBuf;

use super::{Answer, DownloadError, Report, Wanted};
use crate::Settings;

/// Reaches nothing.
#[derive(Debug, Clone)]
pub(super) struct Http;

impl Http {
    pub(super) fn new(_settings: &Settings) -> Result<Http, DownloadError> {
        Ok(Http)
    }

    pub(super) async fn file(&self, wanted: Wanted, _: PathBuf, _: Report) -> Result<PathBuf, DownloadError> {
        Err(DownloadError::NotBuilt { url: wanted.url })
    }

    pub(super) async fn get(&self, url: &str, _: &[(String, String)], _: u64) -> Result<Answer, DownloadError> {
        Err(DownloadError::NotBuilt { url: url.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileDigest;

    #[tokio::test]
    async fn the_missing_feature_is_named() {
        let (http, url) = (Http::new(&Settings::default()).unwrap(), "https://localhost/x".to_owned());
        let digest = FileDigest::of_digits(&"0".repeat(64)).unwrap();
        let wanted = Wanted { url: url.clone(), digest, size: None, limit: 1, headers: Vec::new() };
        let file = http.file(wanted, "/nowhere".into(), Box::new(|_, _, _| {})).await.unwrap_err();
        let answer = http.get(&url, &[], 1).await.unwrap_err();
        for error in [file, answer] {
            let expected =
                "failed to download https://localhost/x: this program was built without quicksand's feature `download`";
            assert_eq!(error.to_string(), expected);
        }
    }
}
