//! HTTP as handlers use it: the right to send requests, and when a server wants to be asked again.

mod grant;
mod host;
mod retry_after;

pub use grant::{HttpGrant, HttpGrantError, HttpReach, HttpScheme, HttpTarget};
pub use host::{HttpHost, HttpHosts};
pub use retry_after::{MAX_RETRY_AFTER, retry_after};
