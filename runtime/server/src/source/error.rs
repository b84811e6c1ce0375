//! Why a component cannot be had.

use std::error::Error as _;
use std::path::PathBuf;

use gristmill_core::units::format_size;

use super::TIMEOUT;

/// Why a component cannot be had. Whose it is, the message leaves to others.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its file cannot be read.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// The file of certificate authorities is of no use.
    #[error("cannot use the certificate authorities (`ca-file`) {}: {reason}", .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// There is no client without certificate authorities.
    #[error(
        "cannot prepare TLS: {0}\n\
         install the system's certificate authorities (often a package called `ca-certificates`), or name a file of \
         them in SSL_CERT_FILE"
    )]
    NoAuthorities(String),
    /// The credentials for the registry cannot be found out.
    #[error("cannot tell the credentials for {registry} from {}: {reason}", .file.display())]
    Credentials {
        /// The registry.
        registry: String,
        /// Docker's configuration.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No answer came.
    #[error("cannot reach {host}: {reason}{}", offline(*.is_pinned))]
    Unreachable {
        /// Who was asked.
        host: String,
        /// Why not.
        reason: String,
        /// Whether its digest is pinned.
        is_pinned: bool,
    },
    /// It took too long.
    #[error("{host} did not send it within {} s{}", TIMEOUT.as_secs(), offline(*.is_pinned))]
    TimedOut {
        /// Who was asked.
        host: String,
        /// Whether its digest is pinned.
        is_pinned: bool,
    },
    /// Somebody else may have it.
    #[error("{host} refuses it: {reason}\n{advice}")]
    Refused {
        /// Who was asked.
        host: String,
        /// What was answered.
        reason: String,
        /// What to do.
        advice: String,
    },
    /// It is not there.
    #[error("{host} has no such component: {reason}")]
    NotFound {
        /// Who was asked.
        host: String,
        /// What was answered.
        reason: String,
    },
    /// Any other answer.
    #[error("{host} does not send it: {reason}")]
    Answer {
        /// Who was asked.
        host: String,
        /// What was answered, or what is wrong with the answer.
        reason: String,
    },
    /// The artifact holds something else.
    #[error(
        "it is no WebAssembly artifact: {found}\n\
         expected an artifact with one layer of type {expected}: `wkg oci push` and `oras push` make them"
    )]
    NotWasm {
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// It is larger than components may be.
    #[error(
        "it is larger than {}\nif it is wanted, raise `max-component-size` in [runtime]",
        format_size(*.0)
    )]
    TooLarge(u64),
    /// It is not the one that is pinned.
    #[error(
        "the digest is not the one that is pinned\n  pinned: {pinned}\n  actual: {actual}\nif the new component is wanted, \
         pin its digest"
    )]
    DigestMismatch {
        /// The one that is wanted.
        pinned: String,
        /// The one that it has.
        actual: String,
    },
    /// It is not what the registry says it is.
    #[error(
        "{host} sent something else than it promised: {reason}\ntry again; if it stays so, the artifact is damaged"
    )]
    Altered {
        /// The registry.
        host: String,
        /// Both digests.
        reason: String,
    },
}

/// What helps whoever does not depend on the network.
fn offline(is_pinned: bool) -> &'static str {
    if is_pinned {
        "\nits digest is pinned, but it is not in the cache"
    } else {
        "\na component whose `digest` is pinned, and that was fetched before, is taken from the cache, also offline"
    }
}

/// What went wrong with a request: the causes, without the address, which may hold a secret.
pub(super) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    // How a client calls its own layers tells nobody anything.
    let is_telling = |text: &String| !["error sending request", "client error (Connect)"].contains(&text.as_str());
    let causes = std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string);
    let mut causes: Vec<String> = causes.filter(is_telling).collect();
    causes.dedup();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}
