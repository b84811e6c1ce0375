//! Manifests of components: `embed`, and what `check` says of a plugin.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::rig::{Deployment, event, gristmill};
use super::shown::{compare, steady};
use super::text;
use gristmill_test_guests as guests;
use serde_json::json;

const MANIFEST: &str = "\
description = \"Does what it is told.\"
subscribe = [{ type = \"test.*\" }]
timeout = \"2s\"
max-log-rate = { per-second = 10, burst = 20 }
config = { colour = \"red\" }
wants = { emit = [\"test.*\", \"other\"], state = [\"counts\"] }
";

struct Folder {
    deployment: Deployment,
}

impl Folder {
    /// A deployment with plugins, and nothing in the folder. `extra` is more TOML.
    fn new(extra: &str) -> Self {
        let plugins = "[plugins]\ndir = \"plugins\"\nallow-subscribe = [\"test.*\"]\n";
        let deployment = Deployment::new(&[plugins.to_owned(), extra.to_owned()]);
        fs::create_dir(deployment.path().join("plugins")).unwrap();
        Self { deployment }
    }

    /// Puts a guest there under another name.
    fn guest(&self, guest: &str, name: &str) -> PathBuf {
        self.file(name, &fs::read(guests::path(guest)).unwrap())
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.deployment.path().join("plugins").join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn embed(&self, component: &Path, flags: &[&str]) -> Output {
        let folder = self.deployment.path().join("plugins");
        gristmill().current_dir(folder).arg("embed").arg(component).args(flags).output().unwrap()
    }

    /// What `check` says, steadily.
    fn check(&self, components: &[&str]) -> String {
        let arguments: Vec<_> = ["check"].iter().chain(components).copied().collect();
        let output = self.deployment.command(&arguments).current_dir(self.deployment.path()).output().unwrap();
        let shown = format!(
            "$ gristmill {}\n{}{}exit {}\n",
            arguments.join(" "),
            text(&output.stdout),
            text(&output.stderr),
            output.status.code().unwrap()
        );
        steady(&shown, self.deployment.path())
    }
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
}

#[test]
fn a_manifest_is_put_in_shown_and_taken_out() {
    let folder = Folder::new("");
    folder.file("first.toml", MANIFEST.as_bytes());
    folder.file("second.toml", b"timeout = \"1s\"\n");
    for guest in [guests::ACTOR, guests::ACKER_MODULE, guests::PROGRAM_MODULE, guests::PROGRAM_COMPONENT] {
        let (file, original) = (folder.guest(guest, "a.wasm"), fs::read(guests::path(guest)).unwrap());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        fails(&folder.embed(&file, &["--show"]), &["carries no manifest"]);

        succeeds(&folder.embed(&file, &["--manifest", "first.toml"]));
        let once = fs::read(&file).unwrap();
        assert!(once.starts_with(&original) && once.ends_with(MANIFEST.as_bytes()), "{guest}");
        let shown = folder.embed(&file, &["--show"]);
        assert_eq!((text(&shown.stdout), shown.status.success()), (MANIFEST.to_owned(), true));

        succeeds(&folder.embed(&file, &["--manifest", "second.toml"]));
        assert_ne!(fs::read(&file).unwrap(), once);
        succeeds(&folder.embed(&file, &["--manifest", "first.toml"]));
        succeeds(&folder.embed(&file, &["--manifest", "first.toml"]));
        assert_eq!(fs::read(&file).unwrap(), once, "the same again");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

        let events = folder.deployment.events(&[event("1", "test.ack", json!({ "type": "test.made", "count": 0 }))]);
        let invoked =
            gristmill().arg("invoke").arg(&file).arg("--event").arg(events).args(["--emit", "*"]).output().unwrap();
        succeeds(&invoked);

        succeeds(&folder.embed(&file, &["--remove", "--output", "b.wasm"]));
        assert_eq!(fs::read(file.with_file_name("b.wasm")).unwrap(), original, "{guest}");
        assert_eq!(fs::read(&file).unwrap(), once, "another file was named");
        succeeds(&folder.embed(&file, &["--remove"]));
        assert_eq!(fs::read(&file).unwrap(), original, "{guest}");
    }
    let left: Vec<_> = fs::read_dir(folder.deployment.path().join("plugins")).unwrap().collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn what_cannot_be_embedded_leaves_the_file_as_it_was() {
    let folder = Folder::new("");
    let file = folder.guest(guests::ACKER, "a.wasm");
    let original = fs::read(&file).unwrap();
    folder.file("wrong.toml", b"timeout = 5\nlease = \"1m\"\n");
    let wrong = folder.embed(&file, &["--manifest", "wrong.toml"]);
    fails(&wrong, &["wrong.toml:1:11", "wrong.toml:2:1", "`lease` cannot be set by a manifest", "^"]);
    fails(&folder.embed(&file, &["--manifest", "none.toml"]), &["there is no manifest none.toml"]);
    folder.file("long.toml", format!("#{}", "x".repeat(64 << 10)).as_bytes());
    fails(&folder.embed(&file, &["--manifest", "long.toml"]), &["has 65537 bytes", "64KiB"]);
    assert_eq!(fs::read(&file).unwrap(), original);

    folder.file("longest.toml", "#".repeat(64 << 10).as_bytes());
    succeeds(&folder.embed(&file, &["--manifest", "longest.toml"]));
    let no_wasm = folder.file("b.wasm", b"hello");
    fails(&folder.embed(&no_wasm, &["--manifest", "longest.toml"]), &["b.wasm: this is text", "not a WebAssembly"]);
    let cut = folder.file("c.wasm", &original[..original.len() - 1]);
    fails(&folder.embed(&cut, &["--manifest", "longest.toml"]), &["c.wasm: the component is damaged"]);
    assert_eq!((fs::read(no_wasm).unwrap(), fs::read(cut).unwrap().len()), (b"hello".to_vec(), original.len() - 1));
}

#[test]
fn a_link_to_a_component_stays_a_link() {
    let folder = Folder::new("");
    let file = folder.guest(guests::ACKER, "a.wasm");
    folder.file("a.toml", MANIFEST.as_bytes());
    let link = file.with_file_name("link.wasm");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    succeeds(&folder.embed(&link, &["--manifest", "a.toml"]));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read(&file).unwrap().ends_with(MANIFEST.as_bytes()));
}

#[test]
fn check_shows_what_a_plugin_says_and_what_it_lacks() {
    let granted = "[[handler]]\nname = \"granted\"\ngrant = { emit = [\"test.*\"] }\n";
    let folder = Folder::new(granted);
    folder.file("manifest.toml", MANIFEST.as_bytes());
    for name in ["granted.wasm", "ungranted.wasm"] {
        let file = folder.guest(guests::ACTOR, name);
        succeeds(&folder.embed(&file, &["--manifest", "manifest.toml"]));
    }
    folder.guest(guests::PROGRAM_MODULE, "beside.wasm");
    folder.file("beside.toml", b"subscribe = [{ type = \"*\" }]\nmemory = \"65MiB\"\n");
    folder.guest(guests::ACKER, "bare.wasm");
    folder.guest(guests::ACKER, "Wrong name.wasm");
    let shown = folder.check(&[
        "plugins/granted.wasm",
        "plugins/ungranted.wasm",
        "plugins/beside.wasm",
        "plugins/bare.wasm",
        "plugins/Wrong name.wasm",
    ]);
    compare("check-plugins", &shown);
}

#[test]
fn two_manifests_are_one_only_if_they_are_the_same() {
    let folder = Folder::new("");
    let file = folder.guest(guests::ACKER, "acker.wasm");
    folder.file("acker.toml", MANIFEST.as_bytes());
    succeeds(&folder.embed(&file, &["--manifest", "acker.toml"]));
    assert!(folder.check(&["plugins/acker.wasm"]).ends_with("exit 0\n"));
    folder.file("acker.toml", b"subscribe = [{ type = \"test.*\" }]\n");
    let shown = folder.check(&["plugins/acker.wasm"]);
    assert!(shown.contains("plugins/acker.wasm carries a manifest, and plugins/acker.toml is another"), "{shown}");
    assert!(shown.ends_with("exit 1\n"), "{shown}");
}
