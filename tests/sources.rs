//! Components from elsewhere: a real registry, and a web server that speaks TLS, both on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gristmill_test_guests::ACKER;
use serde_json::json;
use tempfile::TempDir;

use crate::rig::registry::{Access, PASSWORD, Registry, USER};
use crate::rig::web::Web;
use crate::rig::{Deployment, event, text};

/// A deployment of one handler whose component comes from elsewhere, and a cache of its own.
struct Remote {
    deployment: Deployment,
    home: TempDir,
}

impl Remote {
    fn new(component: &str, extra: &str) -> Self {
        let handler = format!(
            "[[handler]]\nname = \"acker\"\ncomponent = \"{component}\"\nsubscribe = [{{ type = \"*\" }}]\n{extra}\n"
        );
        Self { deployment: Deployment::new(&[handler]), home: TempDir::new().unwrap() }
    }

    fn pinned(component: &str, digest: &str) -> Self {
        Self::new(component, &format!("digest = \"{digest}\""))
    }

    /// Trusts this authority, too.
    fn trusting(self, authority: &str) -> Self {
        fs::write(self.deployment.path().join("ca.pem"), authority).unwrap();
        self.deployment.swap("[runtime]", "[http-client]\nca-file = \"ca.pem\"\n[runtime]");
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.deployment.command(arguments);
        command.env("XDG_CACHE_HOME", self.home.path()).env("DOCKER_CONFIG", self.home.path());
        command
    }

    fn check(&self) -> Output {
        self.command(&["check"]).output().unwrap()
    }

    /// The component loads, and has this digest.
    #[track_caller]
    fn is(&self, digest: &str) {
        let output = self.check();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let shown = text(&output.stdout);
        assert!(shown.contains(&digest[..19]), "{digest}\n{shown}");
    }

    /// The component does not load; why.
    #[track_caller]
    fn complaint(&self) -> String {
        let output = self.check();
        assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stderr)
    }

    /// What is in the cache, each component as the name of its file.
    fn kept(&self) -> Vec<String> {
        let folder = self.cache();
        let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn cache(&self) -> PathBuf {
        self.home.path().join("gristmill/components")
    }
}

/// The acker, with a section that makes it another file; and its digest.
fn acker(version: u8) -> (Vec<u8>, String) {
    let mut bytes = gristmill_test_guests::bytes(ACKER);
    // A custom section of three bytes: a name of one letter, and the version.
    bytes.extend([0, 3, 1, b'v', version]);
    let digest = gristmill_host::digest(&bytes);
    (bytes, digest)
}

#[track_caller]
fn assert_says(complaint: &str, parts: &[&str]) {
    for part in parts {
        assert!(complaint.contains(part), "{part:?} is not in:\n{complaint}");
    }
}

#[test]
fn a_tag_is_what_it_stands_for_when_it_is_loaded() {
    let Some(registry) = Registry::start(Access::Everybody) else { return };
    let ((one, first), (two, second)) = (acker(1), acker(2));
    let manifest = registry.push("stable", &one);
    let remote = Remote::new(&registry.component(":stable"), "");
    remote.is(&first);
    let file = remote.deployment.events(&[event("1", "test", json!(1))]);
    let arguments =
        ["run", "--log", "info", "--log-format", "json", "--until-idle", "--publish", file.to_str().unwrap()];
    let output = remote.command(&arguments).output().unwrap();
    let log = text(&output.stderr);
    assert!(output.status.success() && text(&output.stdout).contains("acker"), "{log}");
    assert_says(
        &log,
        &["\"fetched\"", &first, &format!("\"resolved\":\"{}\"", registry.component(&format!("@{manifest}")))],
    );
    registry.push("stable", &two);
    remote.is(&second);
    assert_eq!(remote.kept().len(), 2, "{:?}", remote.kept());
}

#[test]
fn an_artifact_has_several_names_and_two_layouts() {
    let Some(registry) = Registry::start(Access::Everybody) else { return };
    let (bytes, digest) = acker(1);
    let manifest = registry.push("1.0", &bytes);
    Remote::new(&registry.component(&format!("@{manifest}")), "").is(&digest);
    // Both: the digest counts, whatever became of the tag.
    Remote::new(&registry.component(&format!(":moved@{manifest}")), "").is(&digest);
    Remote::new(&registry.component(":1.0").replace("127.0.0.1", "localhost"), "").is(&digest);
    let (bytes, digest) = acker(2);
    registry.push_layers("older", &[(&bytes, "application/vnd.wasm.content.layer.v1+wasm")], |_| ());
    Remote::new(&registry.component(":older"), "").is(&digest);
}

#[test]
fn a_pin_is_enforced_and_works_offline() {
    let Some(mut registry) = Registry::start(Access::Everybody) else { return };
    let ((one, first), (two, second)) = (acker(1), acker(2));
    registry.push("1", &one);
    let component = registry.component(":1");
    let (pinned, free) = (Remote::pinned(&component, &first), Remote::new(&component, ""));
    pinned.is(&first);
    free.is(&first);
    let wrong = Remote::pinned(&component, &second);
    assert_says(
        &wrong.complaint(),
        &["handler `acker`", &component, &format!("pinned: {second}"), &format!("actual: {first}")],
    );
    assert!(wrong.kept().is_empty(), "{:?}", wrong.kept());
    registry.push("1", &two);
    pinned.is(&first);
    registry.stop();
    pinned.is(&first);
    let host = registry.address.to_string();
    assert_says(
        &free.complaint(),
        &["cannot reach", &host, "Connection refused", "`digest` is pinned", "also offline"],
    );
    assert_says(&wrong.complaint(), &["cannot reach", "its digest is pinned, but it is not in the cache"]);
    // What is in the cache is looked at, and not taken for what it is called.
    let file = pinned.cache().join(first.replace(':', "-"));
    assert_eq!(mode(&pinned.cache()), 0o700);
    assert_eq!(mode(&file), 0o600);
    fs::write(&file, two).unwrap();
    assert_says(&pinned.complaint(), &["cannot use a component that was kept", "it is damaged", "cannot reach"]);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_kept_damaged_is_fetched_again() {
    let Some(registry) = Registry::start(Access::Everybody) else { return };
    let (bytes, digest) = acker(1);
    registry.push("1", &bytes);
    let remote = Remote::new(&registry.component(":1"), "");
    remote.is(&digest);
    let file = remote.cache().join(digest.replace(':', "-"));
    fs::write(&file, "other").unwrap();
    remote.is(&digest);
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn what_a_registry_lacks_is_said() {
    let Some(registry) = Registry::start(Access::Everybody) else { return };
    registry.push("1", &acker(1).0);
    let missing = Remote::new(&registry.component(":2"), "").complaint();
    assert_says(&missing, &[&registry.component(":2"), "has no such component", "manifest unknown"]);
    let other = registry.component(":1").replace("acme", "nobody");
    assert_says(&Remote::new(&other, "").complaint(), &["has no such component"]);
    let nowhere = Remote::new("oci://registry.invalid/acme/acker:1", "").complaint();
    assert_says(&nowhere, &["cannot reach registry.invalid: dns error"]);
}

#[test]
fn an_artifact_has_to_be_webassembly() {
    let Some(registry) = Registry::start(Access::Everybody) else { return };
    let (bytes, _) = acker(1);
    let complaint = |tag: &str| {
        let complaint = Remote::new(&registry.component(tag), "").complaint();
        assert_says(&complaint, &["it is no WebAssembly artifact", "application/wasm"]);
        complaint
    };
    registry.push_layers("image", &[(&bytes, "application/vnd.oci.image.layer.v1.tar+gzip")], |_| ());
    assert_says(&complaint(":image"), &["its layer is of type application/vnd.oci.image.layer.v1.tar+gzip"]);
    let two: [(&[u8], &str); 2] = [(&bytes, "application/wasm"), (b"read me", "text/plain")];
    registry.push_layers("two", &two, |_| ());
    assert_says(&complaint(":two"), &["it has 2 layers"]);
    registry.push("one", &bytes);
    registry.push_index("platforms", "one");
    assert_says(&complaint(":platforms"), &["an index of 1 manifests", "several platforms"]);
}

#[test]
fn a_component_that_is_too_large_is_not_fetched() {
    let Some(registry) = Registry::start(Access::Everybody) else { return };
    let (bytes, _) = acker(1);
    registry.push("honest", &bytes);
    registry.push_layers("liar", &[(&bytes, "application/wasm")], |manifest| manifest.layers[0].size = 1);
    for tag in [":honest", ":liar"] {
        let remote = Remote::new(&registry.component(tag), "");
        remote.deployment.swap("[runtime]", "[runtime]\nmax-component-size = \"1KiB\"");
        assert_says(&remote.complaint(), &["it is larger than 1KiB", "`max-component-size`"]);
        assert!(remote.kept().is_empty(), "{tag}: {:?}", remote.kept());
    }
}

#[test]
fn a_registry_has_to_send_what_it_promised() {
    let Some(registry) = Registry::start(Access::Everybody) else { return };
    let ((one, first), (two, second)) = (acker(1), acker(2));
    registry.push("1", &one);
    fs::write(registry.blob(&first), two).unwrap();
    let complaint = Remote::new(&registry.component(":1"), "").complaint();
    assert_says(&complaint, &["sent something else than it promised", &first, &second]);
}

#[test]
fn a_registry_may_want_to_know_who_asks() {
    let Some(registry) = Registry::start(Access::Miller) else { return };
    let (bytes, digest) = acker(1);
    registry.push("1", &bytes);
    let remote = Remote::new(&registry.component(":1"), "");
    let host = registry.address.to_string();
    assert_says(&remote.complaint(), &["refuses it: 401", "without credentials", &format!("docker login {host}")]);
    let note = |config: String| fs::write(remote.home.path().join("config.json"), config).unwrap();
    let auths = |auth: &str| json!({ "auths": { &host: { "auth": auth } } }).to_string();
    let encoded = |password: &str| base64(&format!("{USER}:{password}"));
    note(auths(&encoded("wrong")));
    assert_says(&remote.complaint(), &["refuses it: 401", &format!("as the user {USER}")]);
    note(auths("not base64"));
    assert_says(&remote.complaint(), &["cannot tell the credentials", "config.json", "USER:PASSWORD in base64"]);
    note(auths(&encoded(PASSWORD)));
    remote.is(&digest);
    // A helper knows them; it is asked for this registry.
    note(json!({ "credHelpers": { &host: "of-a-test" } }).to_string());
    assert_says(&remote.complaint(), &["docker-credential-", "cannot be run"]);
    let helper = remote.home.path().join("docker-credential-of-a-test");
    let script =
        format!("#!/bin/sh\ngrep -q '^{host}$' && echo '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n");
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
    let path = format!("{}:{}", remote.home.path().display(), std::env::var("PATH").unwrap());
    let output = remote.command(&["check"]).env("PATH", path).output().unwrap();
    assert!(output.status.success() && !text(&output.stderr).contains(PASSWORD), "{}", text(&output.stderr));
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A web server with the component at `/acker.wasm`, and ways to it.
fn web(component: Vec<u8>) -> Web {
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Web::start(move |path| {
        let moved = |to: &str| ("302 Found", format!("location: {to}\r\ncontent-length: 0\r\n"), Vec::new());
        match path.split('?').next().unwrap() {
            "/acker.wasm" => ("200 OK", format!("content-length: {}\r\n", component.len()), component.clone()),
            // Nobody knows how long it is.
            "/endless.wasm" => ("200 OK", String::new(), component.clone()),
            "/moved.wasm" => moved("/acker.wasm?token=hush"),
            "/plain.wasm" => moved(&format!("http://{plain}/acker.wasm?token=hush")),
            "/secret.wasm" => ("403 Forbidden", "content-length: 0\r\n".to_owned(), Vec::new()),
            path => match path.strip_prefix("/hops/").and_then(|count| count.parse::<u32>().ok()) {
                Some(0) => moved("/acker.wasm"),
                Some(count) => moved(&format!("/hops/{}", count - 1)),
                None => ("404 Not Found", "content-length: 0\r\n".to_owned(), Vec::new()),
            },
        }
    })
}

#[test]
fn a_component_on_the_web_is_pinned_and_fetched_once() {
    let (bytes, digest) = acker(1);
    let web = web(bytes);
    for (path, requests) in [("/acker.wasm", 1), ("/moved.wasm", 2), ("/endless.wasm", 1), ("/hops/4", 6)] {
        let before = web.asked();
        let remote = Remote::pinned(&web.url(path), &digest).trusting(&web.authority);
        remote.is(&digest);
        remote.is(&digest);
        assert_eq!(web.asked() - before, requests, "{path}");
    }
}

#[test]
fn what_the_web_does_not_give_is_said() {
    let (bytes, digest) = acker(1);
    let (_, other) = acker(2);
    let web = web(bytes);
    let complaint = |path: &str| Remote::pinned(&web.url(path), &digest).trusting(&web.authority).complaint();
    assert_says(
        &complaint("/none.wasm?token=hush"),
        &["localhost has no such component: 404 Not Found", "none.wasm?…"],
    );
    assert_says(&complaint("/secret.wasm"), &["localhost refuses it: 403 Forbidden", "without credentials"]);
    assert_says(&complaint("/plain.wasm"), &["it redirects to http://127.0.0.1", "not `https://`"]);
    assert_says(&complaint("/hops/5"), &["it redirects more than 5 times"]);
    for path in ["/none.wasm?token=hush", "/plain.wasm"] {
        assert!(!complaint(path).contains("hush"), "{}", complaint(path));
    }
    let wrong = Remote::pinned(&web.url("/acker.wasm"), &other).trusting(&web.authority);
    assert_says(&wrong.complaint(), &[&format!("pinned: {other}"), &format!("actual: {digest}")]);
    assert!(wrong.kept().is_empty(), "{:?}", wrong.kept());
    let stranger = Remote::pinned(&web.url("/acker.wasm"), &digest);
    assert_says(&stranger.complaint(), &["cannot reach localhost: invalid peer certificate: UnknownIssuer"]);
    for path in ["/acker.wasm", "/endless.wasm"] {
        let large = Remote::pinned(&web.url(path), &digest).trusting(&web.authority);
        large.deployment.swap("[runtime]", "[runtime]\nmax-component-size = \"1KiB\"");
        assert_says(&large.complaint(), &["it is larger than 1KiB"]);
    }
}
