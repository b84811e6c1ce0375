//! Who this user is to a registry: what `docker login` and its like have noted.

use std::env;
use std::io::ErrorKind;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError as Failure, DockerCredential};
use oci_client::secrets::RegistryAuth;

use super::SourceError;

/// What Docker calls its own registry there.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The user and password for a registry, from Docker's configuration or the helper that it names; nobody in particular
/// where it says nothing of this registry. Blocks.
pub(super) fn of(registry: &str) -> Result<RegistryAuth, SourceError> {
    let Some(file) = file() else { return Ok(RegistryAuth::Anonymous) };
    let refuse =
        |reason: String| SourceError::Credentials { registry: registry.to_owned(), file: file.clone(), reason };
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(RegistryAuth::Anonymous);
        }
        Err(error) => return Err(refuse(error.to_string())),
    };
    let key = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
    match docker_credential::get_credential_from_reader(&*text, key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
        Ok(DockerCredential::IdentityToken(_)) => {
            Err(refuse("it holds an identity token, and only user and password are supported".to_owned()))
        }
        Err(Failure::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        // What helpers say that know nothing of this registry.
        Err(Failure::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {
            Ok(RegistryAuth::Anonymous)
        }
        Err(Failure::HelperFailure { helper, stdout, stderr }) => {
            Err(refuse(format!("the helper {helper} fails: {}", [stdout.trim(), stderr.trim()].join(" ").trim())))
        }
        Err(Failure::HelperCommunicationError) => {
            Err(refuse("the helper `docker-credential-…` that it names cannot be run".to_owned()))
        }
        Err(Failure::MalformedHelperResponse) => Err(refuse(
            "the helper `docker-credential-…` that it names answers something else than credentials".to_owned(),
        )),
        Err(Failure::CredentialDecodingError) => Err(refuse("`auth` is not USER:PASSWORD in base64".to_owned())),
        Err(error) => Err(refuse(error.to_string())),
    }
}

/// `config.json` in `$DOCKER_CONFIG`, or in `~/.docker`.
fn file() -> Option<PathBuf> {
    let folder = env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}
