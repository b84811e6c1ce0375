//! Components in registries: WebAssembly artifacts of the Open Container Initiative.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError as Failure, OciEnvelope, OciErrorCode};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest, WASM_LAYER_MEDIA_TYPE};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};

use super::error::causes;
use super::name::is_loopback;
use super::{
    CONNECT_TIMEOUT, Download, Fetching, SourceError, USER_AGENT, blocking, cached, credentials, is_digest, trust,
};
use crate::cli::text::{clip, one_line};

/// The layer of an artifact as the CNCF's guidance for WebAssembly lays it out; [`WASM_LAYER_MEDIA_TYPE`] is older.
const LAYER: &str = "application/wasm";
/// How much of a server's answer is shown.
const MAX_SHOWN: usize = 300;

/// Gets the artifact's only layer.
pub(super) async fn fetch(wanted: &Reference, pin: Option<&str>, how: &Fetching) -> Result<Download, SourceError> {
    let registry = Registry::new(wanted, pin.is_some(), how).await?;
    let client = &registry.client;
    // The other calls would do this as well, but lose the reason why it fails.
    client.auth(wanted, &registry.auth, RegistryOperation::Pull).await.map_err(|failure| registry.error(failure))?;
    let (manifest, digest) =
        client.pull_manifest(wanted, &registry.auth).await.map_err(|failure| registry.error(failure))?;
    let layer = layer(manifest)?;
    let resolved = format!("oci://{}", wanted.clone_with_digest(digest));
    if let Some(pinned) = pin
        && pinned != layer.digest
    {
        return Err(SourceError::DigestMismatch { pinned: pinned.to_owned(), actual: layer.digest });
    }
    if let Some(bytes) = cached(how, &layer.digest).await? {
        return Ok(Download { bytes, resolved, is_cached: true });
    }
    let bytes = registry.blob(wanted, &layer, how.max_size).await?;
    Ok(Download { bytes, resolved, is_cached: false })
}

/// A registry, and who is asking.
struct Registry {
    host: String,
    client: Client,
    auth: RegistryAuth,
    is_pinned: bool,
}

impl Registry {
    async fn new(wanted: &Reference, is_pinned: bool, how: &Fetching) -> Result<Self, SourceError> {
        let (host, ca_file) = (wanted.resolve_registry().to_owned(), how.ca_file.clone());
        blocking(move || {
            let auth = credentials::of(&host)?;
            let authorities = trust::authorities(ca_file.as_deref())?;
            let client = Client::try_from(config(&host, authorities))
                .map_err(|error| SourceError::NoAuthorities(error.to_string()))?;
            Ok(Self { host, client, auth, is_pinned })
        })
        .await
    }

    async fn blob(&self, wanted: &Reference, layer: &OciDescriptor, max: u64) -> Result<Bytes, SourceError> {
        if u64::try_from(layer.size).is_ok_and(|size| size > max) {
            return Err(SourceError::TooLarge(max));
        }
        // From the registry alone: a manifest may name other addresses.
        let layer = OciDescriptor { urls: None, ..layer.clone() };
        let mut parts =
            self.client.pull_blob_stream(wanted, &layer).await.map_err(|failure| self.error(failure))?.stream;
        let mut bytes = BytesMut::new();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| self.error(Failure::IoError(error)))?;
            if (bytes.len() + part.len()) as u64 > max {
                return Err(SourceError::TooLarge(max));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }

    fn error(&self, failure: Failure) -> SourceError {
        let host = self.host.clone();
        match failure {
            Failure::RequestError(error) => self.broken(error),
            Failure::IoError(error) => match error.downcast::<reqwest::Error>() {
                Ok(error) => self.broken(error),
                Err(error) => match error.downcast::<DigestError>() {
                    Ok(error) => SourceError::Altered { host, reason: error.to_string() },
                    Err(error) => SourceError::Answer { host, reason: error.to_string() },
                },
            },
            Failure::DigestError(error) => SourceError::Altered { host, reason: error.to_string() },
            Failure::UnauthorizedError { .. } => self.refused("401 Unauthorized".to_owned()),
            Failure::AuthenticationFailure(reason) => self.refused(clipped(&reason)),
            Failure::RegistryError { envelope, .. } => self.answer(&envelope),
            Failure::ServerError { code: 404, message, .. } => {
                SourceError::NotFound { host, reason: format!("404 {}", clipped(&message)) }
            }
            Failure::ServerError { code: code @ (401 | 403), message, .. } => {
                self.refused(format!("{code} {}", clipped(&message)))
            }
            Failure::ServerError { code, message, .. } => {
                SourceError::Answer { host, reason: format!("HTTP status {code} {}", clipped(&message)) }
            }
            other => SourceError::Answer { host, reason: clipped(&other.to_string()) },
        }
    }

    fn broken(&self, error: reqwest::Error) -> SourceError {
        SourceError::Unreachable { host: self.host.clone(), reason: causes(error), is_pinned: self.is_pinned }
    }

    /// What the registry says in its own words, all of whose errors are of one kind in practice.
    fn answer(&self, envelope: &OciEnvelope) -> SourceError {
        use OciErrorCode::{
            BlobUnknown, Denied, ManifestBlobUnknown, ManifestUnknown, NameUnknown, NotFound, Unauthorized,
        };
        let words = |error: &oci_client::errors::OciError| match error.message.as_str() {
            "" => format!("{:?}", error.code),
            message => clipped(message),
        };
        let reason = envelope.errors.iter().map(words).collect::<Vec<_>>().join(", ");
        let host = self.host.clone();
        match envelope.errors.first().map(|error| &error.code) {
            Some(BlobUnknown | ManifestBlobUnknown | ManifestUnknown | NameUnknown | NotFound) => {
                SourceError::NotFound { host, reason }
            }
            Some(Denied | Unauthorized) => self.refused(reason),
            _ => SourceError::Answer { host, reason },
        }
    }

    fn refused(&self, reason: String) -> SourceError {
        let host = self.host.clone();
        let advice = match &self.auth {
            RegistryAuth::Anonymous => format!(
                "it was asked without credentials; `docker login {host}` notes them where they are found: in \
                 `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`"
            ),
            RegistryAuth::Basic(user, _) => {
                format!("it was asked as the user {user}; whoever that is needs the right to read it")
            }
            RegistryAuth::Bearer(_) => "the token needs the right to read it".to_owned(),
        };
        SourceError::Refused { host, reason, advice }
    }
}

fn config(host: &str, authorities: Option<Vec<u8>>) -> ClientConfig {
    let certificate = |data| Certificate { encoding: CertificateEncoding::Pem, data };
    let config = ClientConfig {
        extra_root_certificates: authorities.into_iter().map(certificate).collect(),
        // Several platforms are no WebAssembly artifact; none of them is chosen.
        platform_resolver: None,
        connect_timeout: Some(CONNECT_TIMEOUT),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    };
    if !is_loopback(host) {
        return config;
    }
    // A proxy that is not used for any host: otherwise the one from the environment would be asked for this machine.
    let (http_proxy, no_proxy) = (Some("http://127.0.0.1:9".to_owned()), Some("localhost,127.0.0.0/8,::1".to_owned()));
    ClientConfig { protocol: ClientProtocol::Http, http_proxy, no_proxy, ..config }
}

/// The layer that is the component.
fn layer(manifest: OciManifest) -> Result<OciDescriptor, SourceError> {
    let refuse = |found: String| Err(SourceError::NotWasm { found, expected: LAYER });
    let OciImageManifest { config, mut layers, .. } = match manifest {
        OciManifest::Image(manifest) => manifest,
        OciManifest::ImageIndex(index) => {
            let count = index.manifests.len();
            return refuse(format!("it is an index of {count} manifests, such as images for several platforms have"));
        }
    };
    let is_wasm = |layer: &OciDescriptor| [LAYER, WASM_LAYER_MEDIA_TYPE].contains(&layer.media_type.as_str());
    match (layers.len(), layers.pop()) {
        (1, Some(layer)) if is_wasm(&layer) && is_digest(&layer.digest) => Ok(layer),
        (1, Some(layer)) if is_wasm(&layer) => refuse(format!("its layer has the digest {}", clipped(&layer.digest))),
        (1, Some(layer)) => refuse(format!("its layer is of type {}", clipped(&layer.media_type))),
        (count, _) => {
            refuse(format!("it has {count} layers, and its configuration is of type {}", clipped(&config.media_type)))
        }
    }
}

/// What a server says may be long: a whole page, for instance.
fn clipped(text: &str) -> String {
    one_line(&clip(text.trim(), MAX_SHOWN))
}
