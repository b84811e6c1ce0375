//! Compiled code that is kept: used when it is sound, and never otherwise.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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
async fn each_component_has_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    load(&cache).await;
    let rejecting = "(i32.store (i32.const 1024) (i32.const 3)) (i32.const 1024)";
    for is_cached in [false, true] {
        let guest = Guest { handle: rejecting, ..ACKER };
        let component = host(&cache).load(request(guest.build())).await.unwrap();
        assert_eq!(component.is_cached(), is_cached);
        assert_eq!(component.handle(invocation()).await.outcome, Outcome::Reject { reason: String::new() });
    }
    assert!(load(&cache).await.is_cached(), "and the first still has its own");
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
async fn what_belongs_to_others_is_not_used() {
    /// Nobody.
    const OTHER: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    load(&cache).await;
    let entry = only_entry(&cache);
    if chown(&entry, Some(OTHER), None).is_err() {
        // Only root can give files away.
        return;
    }
    assert!(!is_cached(&cache).await, "the entry is another user's");
    assert!(is_cached(&cache).await, "it was written again");
    chown(&cache, Some(OTHER), None).unwrap();
    assert!(!is_cached(&cache).await, "the folder is another user's");
}

#[tokio::test]
async fn nothing_is_written_where_others_are_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, Permissions::from_mode(0o750)).unwrap();
    assert!(!is_cached(&cache).await);
    let link = folder.path().join("link");
    symlink(&cache, &link).unwrap();
    fs::set_permissions(&cache, Permissions::from_mode(0o700)).unwrap();
    assert!(!is_cached(&link).await);
    assert_eq!(entries(&cache), [""; 0].map(PathBuf::from));
}

#[tokio::test]
async fn an_entry_takes_the_place_of_another_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    load(&cache).await;
    let entry = only_entry(&cache);
    fs::write(&entry, "damaged").unwrap();
    // Whoever has it open sees what it was, whatever is written meanwhile.
    let same = folder.path().join("same");
    fs::hard_link(&entry, &same).unwrap();
    assert!(!is_cached(&cache).await);
    assert!(is_cached(&cache).await);
    assert_eq!(fs::read(&same).unwrap(), b"damaged");
    assert_eq!(entries(&cache), [entry], "nothing is left beside it");
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(!is_cached(&file.join("cache")).await);
}

/// Loads one of several components, on a host that keeps at most `max` bytes. Whether it was kept.
async fn load_one(cache: &Path, max: u64, number: u32) -> bool {
    let items = format!("(global i32 (i32.const {number}))");
    let guest = Guest { items: &items, ..ACKER };
    let options = HostOptions { cache: Some(cache.to_owned()), max_cache_size: max, ..HostOptions::default() };
    Host::new(options).unwrap().load(request(guest.build())).await.unwrap().is_cached()
}

/// As if it had last been used so many hours ago.
fn used(path: &Path, hours: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
}

/// The entry of a component, which is loaded for it.
async fn entry_of(cache: &Path, number: u32) -> PathBuf {
    let before = if cache.exists() { entries(cache) } else { Vec::new() };
    load_one(cache, u64::MAX, number).await;
    let new: Vec<_> = entries(cache).into_iter().filter(|path| !before.contains(path)).collect();
    let [entry] = &new[..] else { panic!("one entry: {new:?}") };
    entry.clone()
}

#[tokio::test]
async fn what_was_not_used_for_longest_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let [first, second, third] = [entry_of(&cache, 1).await, entry_of(&cache, 2).await, entry_of(&cache, 3).await];
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let room = size(&first) + size(&second) + size(&third);
    for (path, hours) in [(&first, 9), (&second, 8), (&third, 7)] {
        used(path, hours);
    }
    assert!(load_one(&cache, room, 1).await, "it is used again");
    assert!(!load_one(&cache, room, 4).await);
    assert!(first.exists() && !second.exists() && third.exists(), "{:?}", entries(&cache));
    assert!(load_one(&cache, room, 4).await, "what was written is kept");
    assert!(entries(&cache).iter().map(|path| size(path)).sum::<u64>() <= room);
    // Whoever has less room makes it, and keeps what it has just written.
    assert!(!load_one(&cache, size(&first) + size(&first) / 2, 5).await);
    assert!(load_one(&cache, room, 5).await);
    assert_eq!(entries(&cache).len(), 1);
}

#[tokio::test]
async fn what_is_larger_than_all_room_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let kept = entry_of(&cache, 1).await;
    assert!(!load_one(&cache, 1_000, 2).await);
    assert_eq!(entries(&cache), [kept]);
}

#[tokio::test]
async fn only_entries_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let entry = entry_of(&cache, 1).await;
    let room = fs::metadata(&entry).unwrap().len() * 3 / 2;
    let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
    let (digest, rest) = name.split_at(8);
    let stranger = |name: &str| {
        let path = cache.join(name);
        fs::write(&path, [0; 100_000]).unwrap();
        used(&path, 99);
        path
    };
    let [notes, longer, other, writing] = [
        "notes.component".to_owned(),
        format!("{name}.bak"),
        format!("{digest}{}", rest.replace('-', "_")),
        ".new-b".to_owned(),
    ]
    .map(|name| stranger(&name));
    used(&writing, 0);
    let abandoned = stranger(".new-a");
    // Named as entries are, and none.
    let (link, directory) =
        (cache.join(name.replacen(digest, "00000000", 1)), cache.join(name.replacen(digest, "11111111", 1)));
    symlink(&notes, &link).unwrap();
    fs::create_dir(&directory).unwrap();
    // Only root can give a file away.
    let foreign = stranger(&name.replacen(digest, "22222222", 1));
    let is_foreign = chown(&foreign, Some(1), None).is_ok();
    assert!(!load_one(&cache, room, 2).await);
    assert!(!entry.exists() && !abandoned.exists());
    assert_eq!(foreign.exists(), is_foreign);
    for path in [notes, longer, other, writing, link, directory] {
        assert!(path.symlink_metadata().is_ok(), "{}", path.display());
    }
}

#[tokio::test]
async fn hosts_that_make_room_at_once_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let room = fs::metadata(entry_of(&cache, 0).await).unwrap().len() * 3 / 2;
    let load = |number| {
        let cache = cache.clone();
        tokio::spawn(async move { load_one(&cache, room, number).await })
    };
    for load in (0..8).map(|number| load(number % 4)).collect::<Vec<_>>() {
        load.await.unwrap();
    }
    assert!(!load_one(&cache, room, 9).await);
    assert_eq!(entries(&cache).len(), 1);
}
