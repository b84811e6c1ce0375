//! What a handler sees of the machine and the network: what it was granted, and nothing else.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use gristmill_core::{Event, Secret};
use gristmill_host::{Component, Grants, ImportStatus, Invocation, LoadError, LoadRequest};
use gristmill_test_guests::{ACKER, VISITOR_COMPONENT, VISITOR_MODULE, bytes};
use support::{Guest, host, invocation, request};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

const FORMS: [&str; 2] = [VISITOR_COMPONENT, VISITOR_MODULE];
const DENIED: [&str; 1] = ["failed: PermissionDenied"];

async fn load(guest: &str, grants: Grants) -> Result<Component, LoadError> {
    host(2).load(LoadRequest { grants, ..request(bytes(guest)) }).await
}

async fn visitor(guest: &str, grants: Grants) -> Component {
    load(guest, grants).await.unwrap_or_else(|error| panic!("{error}"))
}

/// What the guest says of `subject`.
async fn visit(guest: &Component, ty: &str, subject: &str) -> Vec<String> {
    let mut event = Event::new("1", "/test", ty);
    event.subject = Some(subject.to_owned());
    let report = guest.handle(Invocation { event: Arc::new(event), ..invocation() }).await;
    assert_eq!(report.outcome.kind().as_str(), "ack", "{ty} {subject}: {:?}", report.outcome);
    report.logs.into_iter().map(|line| line.message).collect()
}

fn env(variables: &[(&str, &str)]) -> Grants {
    let env = variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
    Grants { env, ..Grants::default() }
}

fn files(directory: &Path, grants: &[&str]) -> Grants {
    let grant = |grant: &&str| format!("{}/{grant}", directory.display()).parse().unwrap();
    Grants { files: grants.iter().map(grant).collect(), ..Grants::default() }
}

fn sockets(grants: &[String]) -> Grants {
    Grants { sockets: grants.iter().map(|grant| grant.parse().unwrap()).collect(), ..Grants::default() }
}

#[tokio::test]
async fn variables_are_those_that_were_granted() {
    for guest in FORMS {
        assert!(visit(&visitor(guest, Grants::default()).await, "test.env", "-").await.is_empty(), "{guest}");
        let granted = visitor(guest, env(&[("TZ", "Europe/Berlin"), ("EMPTY", "")])).await;
        assert_eq!(visit(&granted, "test.env", "-").await, ["TZ=Europe/Berlin", "EMPTY="], "{guest}");
        assert!(!format!("{granted:?}").contains("Berlin"), "{granted:?}");
    }
}

/// `in` with `a.txt` and `below/b.txt`, `out`, and `secret.txt` beside them.
fn tree() -> TempDir {
    let tree = TempDir::new().unwrap();
    let root = tree.path();
    fs::create_dir_all(root.join("in/below")).unwrap();
    fs::create_dir(root.join("out")).unwrap();
    fs::write(root.join("in/a.txt"), "alpha").unwrap();
    fs::write(root.join("in/below/b.txt"), "beta").unwrap();
    fs::write(root.join("secret.txt"), "secret").unwrap();
    tree
}

#[tokio::test]
async fn directories_are_read_as_granted() {
    let tree = tree();
    for guest in FORMS {
        let reader = visitor(guest, files(tree.path(), &["in:/in:read"])).await;
        assert_eq!(visit(&reader, "test.list", "/in").await, ["a.txt", "below"], "{guest}");
        assert_eq!(visit(&reader, "test.read", "/in/a.txt").await, ["alpha"], "{guest}");
        assert_eq!(visit(&reader, "test.read", "in/below/../below/b.txt").await, ["beta"], "{guest}");
        for (ty, path) in [("test.write", "/in/a.txt"), ("test.write", "/in/new.txt"), ("test.remove", "/in/a.txt")] {
            assert_eq!(visit(&reader, ty, path).await, DENIED, "{guest} {ty} {path}");
        }
        assert_eq!(visit(&reader, "test.link", "/in/etc").await, DENIED, "{guest}");
        let nothing = visitor(guest, Grants::default()).await;
        let answer = visit(&nothing, "test.read", "/in/a.txt").await;
        assert!(answer[0].starts_with("failed: "), "{guest}: {answer:?}");
    }
    assert_eq!(fs::read_to_string(tree.path().join("in/a.txt")).unwrap(), "alpha");
    assert_eq!(fs::read_dir(tree.path().join("in")).unwrap().count(), 2);
}

#[tokio::test]
async fn directories_are_written_as_granted() {
    for guest in FORMS {
        let tree = tree();
        let writer = visitor(guest, files(tree.path(), &["in:/in:read", "out:/out:write"])).await;
        assert_eq!(visit(&writer, "test.write", "/out/b.txt").await, ["done"], "{guest}");
        assert_eq!(visit(&writer, "test.read", "/out/b.txt").await, ["written"], "{guest}");
        assert_eq!(fs::read_to_string(tree.path().join("out/b.txt")).unwrap(), "written");
        assert_eq!(visit(&writer, "test.remove", "/out/b.txt").await, ["done"], "{guest}");
        assert_eq!(visit(&writer, "test.write", "/in/b.txt").await, DENIED, "{guest}");
        assert_eq!(fs::read_dir(tree.path().join("out")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn no_path_leads_out_of_a_directory() {
    for guest in FORMS {
        let tree = tree();
        symlink(tree.path().join("secret.txt"), tree.path().join("out/absolute")).unwrap();
        symlink("../secret.txt", tree.path().join("out/relative")).unwrap();
        symlink("..", tree.path().join("out/up")).unwrap();
        let writer = visitor(guest, files(tree.path(), &["out:/out:write"])).await;
        let secret = tree.path().join("secret.txt").display().to_string();
        let ways =
            ["/out/../secret.txt", "out/../../secret.txt", "/out/absolute", "/out/relative", "/out/up/secret.txt"];
        for path in ways.into_iter().chain([secret.as_str(), "/etc/hostname"]) {
            for ty in ["test.read", "test.write", "test.remove"] {
                // The links themselves are in the directory.
                if ty == "test.remove" && ["/out/absolute", "/out/relative"].contains(&path) {
                    continue;
                }
                let answer = visit(&writer, ty, path).await;
                assert!(answer[0].starts_with("failed: "), "{guest} {ty} {path}: {answer:?}");
            }
        }
        assert_eq!(fs::read_to_string(tree.path().join("secret.txt")).unwrap(), "secret");
        assert_eq!(visit(&writer, "test.link", "/out/etc").await, DENIED, "{guest}: a link to /etc");
    }
}

#[tokio::test]
async fn a_directory_is_the_one_that_was_there_at_the_load() {
    let tree = tree();
    let reader = visitor(VISITOR_COMPONENT, files(tree.path(), &["in:/in:read"])).await;
    fs::rename(tree.path().join("in"), tree.path().join("moved")).unwrap();
    symlink("/etc", tree.path().join("in")).unwrap();
    assert_eq!(visit(&reader, "test.list", "/in").await, ["a.txt", "below"]);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_a_load_error() {
    let tree = tree();
    for path in ["none:read", "in/a.txt:read"] {
        let error = load(VISITOR_COMPONENT, files(tree.path(), &[path])).await.unwrap_err();
        assert!(matches!(&error, LoadError::Directory { .. }), "{error}");
        assert!(error.to_string().contains(path.strip_suffix(":read").unwrap()), "{error}");
    }
}

/// Answers `pong` to whoever connects.
async fn tcp() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = String::new();
            if stream.read_to_string(&mut asked).await.is_ok() && asked == "ping" {
                let _ = stream.write_all(b"pong").await;
            }
        }
    });
    address
}

#[tokio::test]
async fn connections_go_where_it_was_granted() {
    let (server, other) = (tcp().await, tcp().await);
    let connect = async |grants: &[String], address: &str| {
        visit(&visitor(VISITOR_COMPONENT, sockets(grants)).await, "test.connect", address).await
    };
    let (port, address) = (server.port(), server.to_string());
    for grant in [
        format!("tcp://{server}"),
        format!("tcp://127.0.0.0/8:{port}"),
        "tcp://127.0.0.1:*".to_owned(),
        // Looked up by the host.
        format!("tcp://localhost:{port}"),
    ] {
        assert_eq!(connect(std::slice::from_ref(&grant), &address).await, ["pong"], "{grant}");
    }
    for grant in [
        format!("tcp://{other}"),
        format!("tcp://127.0.0.2:{port}"),
        format!("udp://{server}"),
        format!("tcp://10.0.0.0/8:{port}"),
        format!("tcp://no-such-name.invalid:{port}"),
        format!("tcp://localhost:{}", other.port()),
    ] {
        assert_eq!(connect(std::slice::from_ref(&grant), &address).await, DENIED, "{grant}");
    }
    assert_eq!(connect(&[], &address).await, DENIED);
}

#[tokio::test]
async fn names_are_looked_up_as_granted() {
    let server = tcp().await;
    let by_name = format!("localhost:{}", server.port());
    let granted = visitor(VISITOR_COMPONENT, sockets(&[format!("tcp://{by_name}")])).await;
    assert_eq!(visit(&granted, "test.connect", &by_name).await, ["pong"]);
    assert_eq!(visit(&granted, "test.connect", &format!("LocalHost:{}", server.port())).await, ["pong"]);
    let count: usize = visit(&granted, "test.resolve", "localhost").await[0].parse().unwrap();
    assert!(count > 0);
    // What the machine knows by another name, and could look up without a network.
    let machine = fs::read_to_string("/etc/hostname").unwrap_or_else(|_| "ip6-localhost".to_owned());
    for (grants, name) in [
        (vec![], "localhost"),
        (vec![format!("tcp://{server}")], "localhost"),
        (vec![format!("tcp://{by_name}")], machine.trim()),
        (vec![format!("tcp://{by_name}")], "sub.localhost"),
    ] {
        let answer = visit(&visitor(VISITOR_COMPONENT, sockets(&grants)).await, "test.resolve", name).await;
        assert!(answer[0].starts_with("failed: "), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn names_are_looked_up_so_often_and_no_oftener() {
    // As many as may be looked up within five seconds.
    const MANY: usize = 64;
    let grants = || sockets(&["tcp://localhost:80".to_owned()]);
    let granted = visitor(VISITOR_COMPONENT, grants()).await;
    let mut found = 0;
    while !visit(&granted, "test.resolve", "localhost").await[0].starts_with("failed: ") {
        found += 1;
        // On a slow machine, the seconds may pass before.
        assert!(found < 20 * MANY, "there is no end");
    }
    assert!(found >= MANY, "{found}");
    let other = visitor(VISITOR_COMPONENT, grants()).await;
    assert!(!visit(&other, "test.resolve", "localhost").await[0].starts_with("failed: "), "each has its own");
}

#[tokio::test]
async fn datagrams_go_where_it_was_granted() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut asked = [0; 16];
        while let Ok((length, from)) = server.recv_from(&mut asked).await {
            if &asked[..length] == b"ping" {
                let _ = server.send_to(b"pong", from).await;
            }
        }
    });
    for grant in [format!("udp://{address}"), format!("udp://localhost:{}", address.port())] {
        let guest = visitor(VISITOR_COMPONENT, sockets(&[grant])).await;
        assert_eq!(visit(&guest, "test.send", &address.to_string()).await, ["pong"]);
    }
    for grants in [vec![], vec![format!("tcp://{address}")], vec!["udp://127.0.0.1:1".to_owned()]] {
        let guest = visitor(VISITOR_COMPONENT, sockets(&grants)).await;
        assert_eq!(visit(&guest, "test.send", &address.to_string()).await, DENIED, "{grants:?}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    for grants in [vec![], vec!["tcp://127.0.0.1:*".to_owned(), "tcp://0.0.0.0/0:*".to_owned()]] {
        let guest = visitor(VISITOR_COMPONENT, sockets(&grants)).await;
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            assert_eq!(visit(&guest, "test.listen", address).await, DENIED, "{grants:?} {address}");
        }
    }
}

#[tokio::test]
async fn gaps_name_the_line_that_closes_them() {
    let lines = |component: &Component| component.gaps().iter().map(ToString::to_string).collect::<Vec<_>>();
    let bare = visitor(VISITOR_COMPONENT, Grants::default()).await;
    let expected = [
        "imports wasi:cli/environment, and gets nothing of it without: grant = { env = [\"TZ\"] }",
        "imports wasi:filesystem/types, wasi:filesystem/preopens, and gets nothing of it without: \
         grant = { files = [\"in:read\", \"out:write\"] }",
    ];
    assert_eq!(lines(&bare)[..2], expected);
    assert!(lines(&bare)[2].ends_with("grant = { sockets = [\"tcp://db.internal:5432\"] }"), "{:?}", lines(&bare));
    let module = visitor(VISITOR_MODULE, env(&[("A", "1")])).await;
    assert_eq!(lines(&module).len(), 1, "{:?}", lines(&module));
    assert!(lines(&module)[0].contains("more, and gets nothing of it without: grant = { files = "));

    let tree = tree();
    let grants =
        Grants { sockets: sockets(&["udp://127.0.0.1:1".to_owned()]).sockets, ..files(tree.path(), &["in:/in:read"]) };
    let full = visitor(VISITOR_COMPONENT, Grants { env: env(&[("A", "1")]).env, ..grants }).await;
    assert_eq!(lines(&full), [""; 0]);
    let status = |component: &Component, name: &str| {
        component.imports().iter().find(|import| import.name.starts_with(name)).map(|import| import.status)
    };
    for name in ["wasi:cli/environment@", "wasi:filesystem/preopens@", "wasi:sockets/tcp@"] {
        assert_eq!(status(&bare, name), Some(ImportStatus::Powerless), "{name}");
        assert_eq!(status(&full, name), Some(ImportStatus::Provided), "{name}");
    }
    assert_eq!(status(&full, "wasi:cli/terminal-stdin@"), Some(ImportStatus::Powerless), "no grant is about it");
}

#[tokio::test]
async fn a_newer_component_is_compared_with_an_older_one() {
    let importing = async |names: &[&str], grants: Grants| {
        let imports: String = names.iter().map(|name| format!("(import \"{name}\" (instance))")).collect();
        let guest = Guest { imports: &imports, handle: "(i32.const 1024)", ..Guest::default() };
        host(1).load(LoadRequest { grants, ..request(guest.build()) }).await.unwrap()
    };
    let old = importing(&["wasi:cli/environment@0.2.0", "wasi:io/poll@0.2.0"], Grants::default()).await;
    let names = [
        "wasi:cli/environment@0.2.6",
        "wasi:filesystem/types@0.2.6",
        "wasi:config/store@0.2.0-rc.1",
        "gristmill:events/emitter@0.1.0",
        "wasi:sockets/tcp@0.2.0",
    ];
    let grants = Grants { emit: request("").grants.emit, ..sockets(&["udp://127.0.0.1:1".to_owned()]) };
    let new = importing(&names, grants).await;
    let wants: Vec<_> = new.wants_beyond(&old);
    let wants: Vec<_> = wants
        .iter()
        .map(|want| (want.import.as_str(), want.grant.map(gristmill_host::GrantKind::name), want.is_granted))
        .collect();
    assert_eq!(
        wants,
        [
            ("wasi:filesystem/types@0.2.6", Some("files"), false),
            ("wasi:config/store@0.2.0-rc.1", None, true),
            ("gristmill:events/emitter@0.1.0", Some("emit"), true),
            ("wasi:sockets/tcp@0.2.0", Some("sockets"), true),
        ]
    );
    assert!(old.wants_beyond(&old).is_empty());
    let producer = importing(&["wasi:messaging/producer@0.2.0-draft"], Grants::default()).await;
    assert_eq!(producer.gaps()[0].grant, gristmill_host::GrantKind::Emit);
    let acker = host(1).load(request(bytes(ACKER))).await.unwrap();
    assert!(!acker.wants_beyond(&new).is_empty() && acker.wants_beyond(&acker).is_empty());
}
