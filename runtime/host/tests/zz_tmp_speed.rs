//! x
mod support;
use std::time::Instant;
use gristmill_test_guests::{ACKER, ACTOR, bytes};
use support::{invocation, request, Guest};
#[tokio::test]
async fn speed() {
    let host = support::host(64);
    let wat = Guest { handle: "(i32.const 1024)", ..Guest::default() }.build();
    for (n, b) in [("wat", wat), ("acker", bytes(ACKER).into()), ("actor", bytes(ACTOR).into())] {
        let len = b.len();
        let c = host.load(request(b)).await.unwrap();
        for round in 0..3 {
            let t = Instant::now();
            for _ in 0..5000 { let mut i = invocation(); std::sync::Arc::make_mut(&mut i.event).ty = "test.ack".into(); let r = c.handle(i).await; assert_eq!(r.outcome.kind().as_str(), "ack"); }
            println!("{n} {len} B compile {:?} round {round}: {:?}/call", c.compile_time(), t.elapsed() / 5000);
        }
    }
}
