//! Manifests: what is understood, how every mistake is explained, and what becomes of them in a deployment.
//!
//! Each `manifest-errors/NAME.toml` is rendered to `NAME.err` beside it; so is what the deployment `plugin-errors/NAME.runtime`
//! says to the manifest `NAME.toml`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gristmill::config::{self, Config, ConfigErrors, ConfigValue, Granted, HandlerConfig, Manifest, Plugin};
use gristmill::source::Source;
use gristmill_core::{HandlerName, Pattern, Secret, Subscription};
use gristmill_host::{Instances, Interface};
use gristmill_queue::{QueueOptions, Rate};
use proptest::prelude::*;

use super::{DIGEST, golden, pattern};

/// Every key that there is.
const FULL: &str = r#"
description = "Makes thumbnails of images."
subscribe = [{ type = "com.acme.image.*" }, { type = "com.acme.x", source = "${HOME}", subject = "$${a}" }]
ordering-key = "subject"
batch-size = 3
interface = "wasi:cli/run"
config = { width = 640, "${HOME}" = "${HOME}", depth = "8" }
max-attempts = 3
timeout = "1s"
memory = "32MiB"
concurrency = 2
max-state-writes = 10
max-state-bytes = "1MiB"
max-emits = 0
max-emit-bytes = "1MiB"
max-log-bytes = "1KiB"
max-log-rate = { per-second = 10, burst = 20 }
max-result-bytes = "1KiB"
max-call-bytes = "1MiB"
max-handles = 100
instances = "fresh"
reuse-events = 10
reuse-for = "1m"
key-concurrency = 1
rate = { per-second = 5 }
key-rate = "unlimited"
time-to-live = "1h"
max-age = "unlimited"

[wants]
emit = ["com.acme.thumbnail.*"]
state = ["thumbnails", "prices:read"]
http = ["GET https://api.example.com/v1"]
env = ["TZ"]
files = ["in:/in:read"]
sockets = ["tcp://db.internal:5432"]
"#;

const ALLOWING: &str = "[plugins]\ndir = \"plugins\"\nallow-subscribe = [\"com.acme.*\"]\n";

fn manifest(text: &str) -> Result<Manifest, ConfigErrors> {
    Manifest::parse(text.as_bytes(), Path::new("plugins/resize.wasm (gristmill:manifest)"))
}

fn plugin(manifest: Option<Manifest>) -> Plugin {
    let name = HandlerName::new("resize").unwrap();
    Plugin { name, path: "deploy/plugins/resize.wasm".into(), digest: DIGEST.to_owned(), manifest }
}

fn deployment(text: &str) -> Config {
    config::parse_with(text, Path::new("deploy/runtime.toml"), &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// What the plugin `resize` with this manifest is in this deployment.
fn handler(deployed: &str, text: &str) -> HandlerConfig {
    let manifest = manifest(text).unwrap_or_else(|errors| panic!("{errors}"));
    deployment(deployed).plugin(&plugin(Some(manifest))).unwrap_or_else(|errors| panic!("{errors}"))
}

fn types<const N: usize>(types: [&str; N]) -> Vec<Subscription> {
    types.iter().map(|ty| Subscription { ty: pattern(ty), ..Subscription::default() }).collect()
}

#[test]
fn every_mistake_of_a_manifest_is_explained() {
    golden("manifest-errors", |text, origin| {
        Manifest::parse(text.as_bytes(), Path::new(&format!("{} (gristmill:manifest)", origin.display()))).map(drop)
    });
}

#[test]
fn what_a_deployment_does_not_allow_is_explained() {
    golden("plugin-errors", |text, origin| {
        let deployed = fs::read_to_string(Path::new("tests/plugin-errors").join(origin).with_extension("runtime"));
        let manifest = manifest(text).unwrap_or_else(|errors| panic!("{errors}"));
        deployment(&deployed.unwrap()).plugin(&plugin(Some(manifest))).map(drop)
    });
}

#[test]
fn every_key_of_a_manifest_is_read_and_nothing_is_filled_in() {
    let said = manifest(FULL).unwrap();
    assert_eq!(said.description(), Some("Makes thumbnails of images."));
    let subscribe: Vec<_> = said.subscribe().cloned().collect();
    let second = Subscription { ty: pattern("com.acme.x"), source: pattern("${HOME}"), subject: pattern("$${a}") };
    assert_eq!(subscribe, [types(["com.acme.image.*"]), vec![second]].concat());
    assert_eq!(said.configured().collect::<Vec<_>>(), ["${HOME}", "depth", "width"]);
    assert_eq!(said.settings().len(), 24);
    assert!(said.settings().contains(&("max-log-rate".into(), "{ per-second = 10, burst = 20 }".into())));
    let line = "grant = { emit = [\"com.acme.thumbnail.*\"], state = [\"thumbnails\", \"prices:read\"], \
                http = [\"GET https://api.example.com/v1\"], env = [\"TZ\"], files = [\"in:/in:read\"], \
                sockets = [\"tcp://db.internal:5432\"] }";
    assert_eq!(said.wants().line().as_deref(), Some(line));

    let resize = handler(ALLOWING, FULL);
    assert_eq!(resize.component, Source::Path("deploy/plugins/resize.wasm".into()));
    assert_eq!((resize.interface, resize.batch_size), (Some(Interface::Run), Some(3)));
    assert_eq!(resize.config["${HOME}"], ConfigValue::Text(Secret::new("${HOME}")));
    assert_eq!((resize.limits.timeout, resize.limits.memory), (Duration::from_secs(1), 32 << 20));
    assert_eq!((resize.limits.max_emits, resize.limits.max_handles, resize.concurrency), (0, 100, 2));
    assert_eq!(resize.instances, Instances::Fresh);
    assert_eq!(resize.max_log_rate, Some(Rate { per_second: 10.0, burst: 20 }));
    assert_eq!(resize.queue.retry.max_attempts, Some(3));
    assert_eq!(resize.queue.key.attribute.as_deref(), Some("subject"));
    assert_eq!(resize.queue.time_to_live, Some(Duration::from_hours(1)));
    assert_eq!((resize.grant, resize.wants), (Granted::default(), said.wants().clone()), "it grants itself nothing");
}

#[test]
fn runtime_toml_has_the_last_word() {
    let deployed = "
        [plugins]
        dir = 'plugins'
        allow-subscribe = ['com.acme.*']
        [defaults]
        timeout = '4s'
        max-emits = 5
        [[handler]]
        name = 'resize'
        digest = 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'
        subscribe = [{ type = 'org.example' }]
        memory = '128MiB'
        interface = 'gristmill:events/handler'
        config = { width = '1', key = 'k' }
        grant = { emit = ['com.*'] }";
    let said = "
        subscribe = [{ type = '*' }]
        memory = '1GiB'
        timeout = '3s'
        interface = 'wasi:cli/run'
        ordering-key = 'subject'
        config = { width = '2', depth = '3' }
        wants = { emit = ['com.acme.*'], state = ['thumbnails'] }";
    let resize = handler(deployed, said);
    assert_eq!(resize.subscribe, types(["org.example"]), "not even judged");
    assert_eq!((resize.limits.memory, resize.limits.timeout), (128 << 20, Duration::from_secs(3)));
    assert_eq!((resize.limits.max_emits, resize.interface), (5, Some(Interface::Handler)));
    assert_eq!((resize.digest.as_deref(), resize.queue.key.attribute.as_deref()), (Some(DIGEST), Some("subject")));
    let text = |text: &str| ConfigValue::Text(Secret::new(text));
    let config = [("depth", text("3")), ("key", text("k")), ("width", text("1"))];
    assert_eq!(resize.config.iter().map(|(key, value)| (key.as_str(), value.clone())).collect::<Vec<_>>(), config);
    assert_eq!(resize.grant.emit, [Pattern::new("com.*")]);
    assert_eq!(resize.wants.beyond(&resize.grant).line().as_deref(), Some("grant = { state = [\"thumbnails\"] }"));
}

#[test]
fn a_plugin_needs_no_manifest_when_runtime_toml_says_what_it_handles() {
    let deployed = "[plugins]\ndir = 'plugins'\n[[handler]]\nname = 'resize'\nsubscribe = [{ subject = 'x' }]";
    let resize = deployment(deployed).plugin(&plugin(None)).unwrap();
    assert_eq!((resize.subscribe.len(), resize.queue), (1, QueueOptions::default()));

    let errors = deployment(ALLOWING).plugin(&plugin(None)).unwrap_err();
    let expected = "\
error: nothing says which events `resize` handles: it has no manifest
 |
 = help: give it a manifest that says so (`gristmill embed`), or write in deploy/runtime.toml:
           [[handler]]
           name = \"resize\"
           subscribe = [{ type = \"com.acme.image.*\" }]";
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn a_component_of_the_folder_may_be_named_as_well() {
    let named = "\n[[handler]]\nname = 'resize'\ncomponent = 'plugins/resize.wasm'\nsubscribe = [{ type = 'a' }]";
    assert_eq!(handler(&format!("{ALLOWING}{named}"), FULL).subscribe, types(["a"]));
}

#[test]
fn handlers_without_a_component_are_expected_from_the_folder() {
    let deployed = deployment(
        "[plugins]\ndir = 'plugins'\n[[handler]]\nname = 'resize'\n\
         [[handler]]\nname = 'notify'\ncomponent = 'a.wasm'\nsubscribe = [{ type = '*' }]",
    );
    assert_eq!(deployed.expected().map(HandlerName::as_str).collect::<Vec<_>>(), ["resize"]);
    assert_eq!(deployed.handlers.iter().map(|handler| handler.name.as_str()).collect::<Vec<_>>(), ["notify"]);
    assert!(deployment(ALLOWING).handlers.is_empty(), "there need not be any");
}

#[test]
fn what_a_manifest_wants_is_compared_with_what_is_granted() {
    let granted = |grant: &str| {
        let text = format!("[[handler]]\nname = 'a'\ncomponent = 'a'\nsubscribe = [{{ type = 'a' }}]\ngrant = {grant}");
        deployment(&text).handlers.remove(0).grant
    };
    for (wanted, grant, is_covered) in [
        ("emit = ['a.b.*', 'a.c']", "emit = ['a.*']", true),
        ("emit = ['a*']", "emit = ['a.*']", false),
        ("state = ['a:read', 'b']", "state = ['a', 'b']", true),
        ("state = ['a']", "state = ['a:read']", false),
        ("files = ['x:/in:read']", "files = ['y:/in:write']", true),
        ("files = ['x:/in:write']", "files = ['y:/in:read']", false),
        ("files = ['x:/in:read']", "files = ['x:/on:read']", false),
        ("env = ['A']", "env = ['B', 'A']", true),
        ("env = ['A']", "env = []", false),
        ("sockets = ['tcp://10.1.2.3:53']", "sockets = ['tcp://10.0.0.0/8:*']", true),
        ("sockets = ['tcp://10.0.0.0/8:53']", "sockets = ['tcp://10.1.0.0/16:53']", false),
        ("sockets = ['tcp://10.1.2.3:*']", "sockets = ['tcp://10.1.2.3:53']", false),
        ("sockets = ['udp://db:53']", "sockets = ['udp://db:*']", true),
        ("sockets = ['udp://db:53']", "sockets = ['tcp://db:53']", false),
        ("http = ['GET https://a/v1/x']", "http = ['GET,POST https://a/v1']", true),
        ("http = ['https://a']", "http = ['GET https://a']", false),
        ("http = ['GET https://a']", "http = ['GET https://a/v1']", false),
        ("http = ['https://x.b']", "http = ['https://*.b']", true),
        ("http = ['https://*.x.b']", "http = ['https://*.b']", true),
        ("http = ['https://*.b']", "http = ['https://any.b']", false),
        ("http = ['https://a private']", "http = ['https://a']", false),
    ] {
        let said = manifest(&format!("wants = {{ {wanted} }}")).unwrap();
        let missing = said.wants().beyond(&granted(&format!("{{ {grant} }}")));
        assert_eq!(missing.is_empty(), is_covered, "{wanted} under {grant}: {:?}", missing.line());
    }
}

#[test]
fn a_line_that_grants_is_toml() {
    let said = manifest("wants = { emit = ['a\"b\\c', \"\\u0007\"] }").unwrap();
    assert_eq!(said.wants().line().as_deref(), Some(r#"grant = { emit = ["a\"b\\c", "\u0007"] }"#));
}

#[test]
fn what_is_no_text_is_explained() {
    let errors = Manifest::parse(b"timeout = \"caf\xe9\"\n", Path::new("a.wasm (gristmill:manifest)")).unwrap_err();
    assert_eq!(errors.problems()[0].message(), "the file is not UTF-8");
    assert!(errors.to_string().contains("a.wasm (gristmill:manifest):1:15"), "{errors}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_mutation_of_a_manifest_panics_or_exceeds_the_defaults(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..6usize, any::<char>()), 1..6),
    ) {
        let mut characters: Vec<char> = FULL.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(characters.len());
            let end = (at + removed).min(characters.len());
            characters.splice(at..end, [inserted]);
        }
        let result = manifest(&characters.iter().collect::<String>())
            .and_then(|manifest| deployment(ALLOWING).plugin(&plugin(Some(manifest))));
        match result {
            Ok(handler) => {
                prop_assert!(handler.limits.timeout <= Duration::from_secs(5) && handler.limits.memory <= 64 << 20);
                prop_assert_eq!(handler.grant, Granted::default());
            }
            Err(errors) => prop_assert!(!errors.to_string().is_empty()),
        }
    }
}
