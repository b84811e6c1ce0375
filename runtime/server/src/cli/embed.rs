//! What `gristmill embed` does, from its flags.

use std::path::PathBuf;

/// `embed`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gristmill embed resize.wasm --manifest resize.toml
  gristmill embed target/resize.wasm --manifest resize.toml --output plugins/resize.wasm
  gristmill embed resize.wasm --show
  gristmill embed resize.wasm --remove

A manifest is TOML: what the component subscribes to, its limits, and what it wants to be granted. All of the file but
the manifest stays as it is, byte for byte.")]
pub struct Embed {
    /// The component's file, or a core module's
    #[arg(value_name = "COMPONENT")]
    pub component: PathBuf,
    /// The manifest to put in, in place of any that is there
    #[arg(long, value_name = "FILE", required_unless_present_any = ["show", "remove"], conflicts_with_all = ["show", "remove"])]
    pub manifest: Option<PathBuf>,
    /// Where the result goes [default: COMPONENT itself, by a rename]
    #[arg(long, value_name = "FILE", conflicts_with = "show")]
    pub output: Option<PathBuf>,
    /// Print the manifest that is there
    #[arg(long, conflicts_with = "remove")]
    pub show: bool,
    /// Take the manifest out
    #[arg(long)]
    pub remove: bool,
}
