//! Compiled code that is kept: used when it is sound, and never otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use gristmill_core::Outcome;
use gristmill_host::{Component, Host, HostOptions};
use gristmill_test_guests as guests;
use support::{Guest, invocation, request};

const ACKER: Guest<'_> = Guest { imports: "", core_imports: "", with: "", items: "", handle: "(i32.const 1024)" };

fn host(cache: &Path) -> Host {
    Host::new(HostOptions { cache: Some(cache.to_owned()), ..HostOptions::default() }).unwrap()
}

/// Loads it on a host of its own, as after a start.
async fn load(cache: &Path) -> Component {
    let component = host(cache).load(request(ACKER.build())).await.unwrap();
    assert_eq!(component.handle(invocation()).await.outcome, Outcome::Ack { result: None });
    component
}

async fn is_cached(cache: &Path) -> bool {
    load(cache).await.is_cached()
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn only_entry(cache: &Path) -> PathBuf {
    let [entry] = &entries(cache)[..] else { panic!("one entry: {:?}", entries(cache)) };
    entry.clone()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn code_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("a/b");
    assert!(!is_cached(&cache).await);
    assert!(is_cached(&cache).await);
    assert_eq!((mode(&cache), mode(&only_entry(&cache))), (0o700, 0o600));
    // Another way to compile, another entry.
    let other = HostOptions { cache: Some(cache.clone()), count_fuel: true, ..HostOptions::default() };
    let component = Host::new(other).unwrap().load(request(ACKER.build())).await.unwrap();
    assert!(!component.is_cached());
    assert_eq!(entries(&cache).len(), 2);
}

#[tokio::test]
async fn core_modules_are_kept_too() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    for is_cached in [false, true] {
        let component = host(&cache).load(request(guests::bytes(guests::PROGRAM_MODULE))).await.unwrap();
        assert_eq!(component.is_cached(), is_cached);
    }
}

#[tokio::test]
async fn a_damaged_entry_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    load(&cache).await;
    let path = only_entry(&cache);
    let sound = fs::read(&path).unwrap();
    // A bit anywhere, the end cut off, something behind it, nothing at all.
    let mut damaged: Vec<Vec<u8>> = Vec::new();
    for at in (0..sound.len()).step_by(sound.len() / 50) {
        let mut bytes = sound.clone();
        bytes[at] ^= 4;
        damaged.push(bytes);
    }
    damaged.push(sound[..sound.len() / 2].to_vec());
    damaged.push([&sound[..], b"x"].concat());
    damaged.push(Vec::new());
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        assert!(!is_cached(&cache).await);
        assert_eq!(fs::read(&path).unwrap().len(), sound.len(), "it was written again");
    }
    assert!(is_cached(&cache).await);
}

#[tokio::test]
async fn what_others_may_have_written_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    load(&cache).await;
    let entry = only_entry(&cache);

    fs::set_permissions(&cache, Permissions::from_mode(0o750)).unwrap();
    assert!(!is_cached(&cache).await, "others may look into the folder");
    fs::set_permissions(&cache, Permissions::from_mode(0o700)).unwrap();
    assert!(is_cached(&cache).await);

    fs::set_permissions(&entry, Permissions::from_mode(0o620)).unwrap();
    assert!(!is_cached(&cache).await, "others may write the entry");
    assert!(is_cached(&cache).await, "it was written again");

    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&entry, &elsewhere).unwrap();
    symlink(&elsewhere, &entry).unwrap();
    assert!(!is_cached(&cache).await, "the entry is a link");

    let link = folder.path().join("link");
    symlink(&cache, &link).unwrap();
    assert!(!is_cached(&link).await, "the folder is a link");
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(!is_cached(&file.join("cache")).await);
}
