//! What the log says of requests that the host does not send. A handler is told a code, which says too little to mend it.

use std::net::IpAddr;

use gristmill_core::http::{HttpGrant, HttpHost};

use super::address::{self, Kind};
use crate::log::LogLevel;
use crate::stdio::SharedLog;

/// No grant covers `request`, which is a method, a scheme, a host and a port: the rest may be secret.
pub(super) fn not_granted(log: &SharedLog, request: &str, grants: &[HttpGrant]) {
    let granted = match grants {
        [] => "the handler has no grant of HTTP".to_owned(),
        grants => {
            let grants: Vec<_> = grants.iter().map(|grant| format!("\"{grant}\"")).collect();
            format!("it is not covered by the grant http = [{}]", grants.join(", "))
        }
    };
    write(log, &format!("{request} was denied: {granted}"));
}

/// `request` is granted, and nothing leaves a replay.
pub(super) fn replayed(log: &SharedLog, request: &str) {
    write(log, &format!("{request} was denied: this is a replay"));
}

/// `host` stands for an address that the grant does not permit.
pub(super) fn prohibited(log: &SharedLog, host: &HttpHost, address: IpAddr) {
    let why = match address::kind(address) {
        Kind::Private => "is private; if that is meant, end the grant with the word `private`",
        Kind::Reserved | Kind::Public => "is reserved; if that is meant, grant the address itself",
    };
    write(log, &format!("no connection to {host}: its address {address} {why}"));
}

fn write(log: &SharedLog, message: &str) {
    log.lock().push(LogLevel::Warn, "gristmill", message);
}
