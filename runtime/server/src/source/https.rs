//! Components on web servers.

use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Client, Response, StatusCode, Url, redirect};

use super::error::causes;
use super::{CONNECT_TIMEOUT, Download, Fetching, SourceError, USER_AGENT, blocking, trust};

/// How often a server may say that it is elsewhere.
const MAX_REDIRECTS: usize = 5;

/// Gets the file.
pub(super) async fn fetch(url: &Url, pin: Option<&str>, how: &Fetching) -> Result<Download, SourceError> {
    let ca_file = how.ca_file.clone();
    let client = blocking(move || {
        let pem = trust::authorities(ca_file.as_deref())?;
        client(&pem.unwrap_or_default()).map_err(|error| SourceError::NoAuthorities(causes(error)))
    });
    let is_pinned = pin.is_some();
    let response = client.await?.get(url.clone()).send().await.map_err(|error| failure(url, error, is_pinned))?;
    let response = expect_ok(url, response)?;
    let resolved = shown(response.url());
    let bytes = body(url, response, is_pinned, how.max_size).await?;
    Ok(Download { bytes, resolved, is_cached: false })
}

/// The URL without its query, which may hold a secret.
pub(super) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    format!("{shown}{}", if url.query().is_some() { "?…" } else { "" })
}

fn client(authorities: &[u8]) -> reqwest::Result<Client> {
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .tls_certs_merge(Certificate::from_pem_bundle(authorities)?)
        .redirect(redirect::Policy::custom(follow))
        .referer(false)
        .build()
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    if attempt.url().scheme() != "https" {
        let message = format!("it redirects to {}, which is not `https://`", shown(attempt.url()));
        attempt.error(message)
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error(format!("it redirects more than {MAX_REDIRECTS} times"))
    } else {
        attempt.follow()
    }
}

fn failure(url: &Url, error: reqwest::Error, is_pinned: bool) -> SourceError {
    let (host, is_redirect) = (host(url), error.is_redirect());
    let reason = causes(error);
    if is_redirect {
        SourceError::Answer { host, reason }
    } else {
        SourceError::Unreachable { host, reason, is_pinned }
    }
}

fn expect_ok(url: &Url, response: Response) -> Result<Response, SourceError> {
    let (host, status) = (host(url), response.status());
    let reason = format!("{status} for {}", shown(response.url()));
    match status {
        StatusCode::OK => Ok(response),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(SourceError::NotFound { host, reason }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let advice = "components are fetched over `https://` without credentials: put it where everybody may have it, \
                or into a registry";
            Err(SourceError::Refused { host, reason, advice: advice.to_owned() })
        }
        _ => Err(SourceError::Answer { host, reason }),
    }
}

async fn body(url: &Url, mut response: Response, is_pinned: bool, max: u64) -> Result<Bytes, SourceError> {
    if response.content_length().is_some_and(|length| length > max) {
        return Err(SourceError::TooLarge(max));
    }
    let mut bytes = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(|error| failure(url, error, is_pinned))? {
        if (bytes.len() + part.len()) as u64 > max {
            return Err(SourceError::TooLarge(max));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}
