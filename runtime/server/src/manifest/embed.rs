//! `gristmill embed`: puts a manifest into a component, shows it, and takes it out.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use gristmill_host::{digest, manifest, with_manifest};

use super::{PluginError, at, of};
use crate::cli::embed::Embed;
use crate::cli::screen::{self, Screen};
use crate::cli::text::block;

/// Does what the flags say. Blocks.
///
/// # Errors
/// When a file cannot be read or written.
pub fn embed(args: &Embed) -> anyhow::Result<ExitCode> {
    let result = if args.show { show(&args.component) } else { write(args) };
    match result.as_ref().map_err(anyhow::Error::downcast_ref::<PluginError>) {
        Err(Some(error)) => {
            eprint!("{}", error.complaint());
            Ok(ExitCode::FAILURE)
        }
        _ => result.map(|()| ExitCode::SUCCESS),
    }
}

fn read(component: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(component).with_context(|| format!("cannot read {}", component.display()))
}

fn write(args: &Embed) -> anyhow::Result<()> {
    let component = args.component.as_path();
    let bytes = read(component)?;
    let new = match &args.manifest {
        Some(file) => Some(at(file)?.ok_or_else(|| anyhow!("there is no manifest {}", file.display()))?),
        None => None,
    };
    let text = new.as_ref().map(|manifest| manifest.text().as_bytes());
    let written = with_manifest(&bytes, text).map_err(|error| anyhow!("{}: {error}", component.display()))?;
    let target = args.output.as_deref().unwrap_or(component);
    let is_there = args.output.is_none() && written == bytes;
    if !is_there {
        replace(target, &written, component).with_context(|| format!("cannot write {}", target.display()))?;
    }
    let what = match (&new, is_there) {
        (Some(_), false) => "has the manifest",
        (Some(_), true) => "has this manifest already",
        (None, false) => "has no manifest now",
        (None, true) => "has no manifest",
    };
    eprint!("{}", block(&format!("{} {what}: {}", target.display(), digest(&written)), ""));
    Ok(())
}

/// Prints the manifest as it is, and then what is wrong with it.
fn show(component: &Path) -> anyhow::Result<()> {
    let bytes = read(component)?;
    let section = manifest(&bytes).map_err(|error| anyhow!("{}: {error}", component.display()))?;
    let Some(section) = section else {
        return Err(anyhow!("{} carries no manifest", component.display()));
    };
    match Screen::stdout() {
        Screen::Terminal { .. } => screen::print(&block(&String::from_utf8_lossy(section), ""))?,
        Screen::Plain => io::stdout().lock().write_all(section)?,
    }
    of(&bytes, component)?;
    Ok(())
}

/// Writes `bytes` beside `target` and renames them to it, so that nobody sees half of them. A file that is there keeps its
/// permissions; another gets those of `model`.
fn replace(target: &Path, bytes: &[u8], model: &Path) -> io::Result<()> {
    // A link stays one.
    let target = if target.exists() { fs::canonicalize(target)? } else { target.to_owned() };
    let permissions = fs::metadata(if target.exists() { &target } else { model })?.permissions();
    let beside = beside(&target)?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.write_all(bytes)?;
        file.set_permissions(permissions)?;
        file.sync_all()?;
        fs::rename(&beside, &target)
    };
    let written = write();
    if written.is_err() {
        // What was wrong is known already.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A file in the same folder that nobody else writes, and that is no component by its name.
fn beside(target: &Path) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.new", std::process::id()));
    Ok(target.with_file_name(hidden))
}
