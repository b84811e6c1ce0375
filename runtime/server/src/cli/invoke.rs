//! What `gristmill invoke` runs, and how, from its flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use gristmill_core::units::{parse_duration, parse_size};
use gristmill_core::{DirectoryGrant, HttpGrant, Pattern, SocketGrant, StateGrant};
use gristmill_host::Interface;

/// `invoke`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill invoke plugins/resize.wasm --event event.json
  gristmill invoke plugins/resize.wasm --event event.json --emit 'com.acme.*' --timeout 1s
  gristmill invoke plugins/resize.wasm --event event.json --set width=640 --files images:/in:read
  gristmill invoke plugins/resize.wasm --event event.json --http 'GET https://images.example.com'")]
pub struct Invoke {
    /// The component's file
    #[arg(value_name = "COMPONENT")]
    pub component: PathBuf,
    /// A CloudEvent as JSON (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    pub event: PathBuf,
    /// Which of its interfaces to call, where it has several
    #[arg(long, value_name = "INTERFACE", value_parser = interface())]
    pub interface: Option<Interface>,
    /// A type of events that it may emit, `*` for any run of characters; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub emit: Vec<Pattern>,
    /// A bucket of state that it may use: NAME, or NAME:read. It is empty at first; what is written is printed, and
    /// kept nowhere. May be repeated
    #[arg(long, value_name = "BUCKET")]
    pub state: Vec<StateGrant>,
    /// A value that it is configured with; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// A variable of this environment that it sees; may be repeated
    #[arg(long, value_name = "NAME")]
    pub env: Vec<String>,
    /// A directory that it may use: PATH:read, PATH:write, or PATH:/NAME:read where it calls it /NAME. May be repeated
    #[arg(long, value_name = "DIRECTORY")]
    pub files: Vec<DirectoryGrant>,
    /// Addresses that it may talk to, such as tcp://db.internal:5432 or udp://10.0.0.0/8:*; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub sockets: Vec<SocketGrant>,
    /// Requests that it may send: [METHOD,…] SCHEME://HOST[:PORT][/PATH] [private]; may be repeated
    #[arg(long, value_name = "GRANT")]
    pub http: Vec<HttpGrant>,
    /// Certificate authorities that its requests trust besides the public ones (PEM)
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How long it may run
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = timeout)]
    pub timeout: Duration,
    /// How much memory it may have
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub memory: u64,
}

fn interface() -> impl TypedValueParser<Value = Interface> {
    PossibleValuesParser::new(Interface::ALL.map(Interface::name)).try_map(|name| name.parse::<Interface>())
}

fn pattern(text: &str) -> Result<Pattern, &'static str> {
    if text.is_empty() { Err("an empty pattern matches nothing") } else { Ok(Pattern::new(text)) }
}

fn key_value(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE"),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("a timeout must be longer than zero".to_owned()),
        Ok(timeout) => Ok(timeout),
        Err(error) => Err(error.to_string()),
    }
}
