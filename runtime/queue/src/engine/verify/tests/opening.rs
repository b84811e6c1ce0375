//! What a damaged store is still good for.

use gristmill_core::QueueName;

use super::*;
use crate::contract::{Claim, Holder, Publish};

/// One damaged entry that somebody had claimed, and everything else goes on.
#[tokio::test]
async fn an_unreadable_leased_entry_does_not_keep_a_store_from_opening() {
    for holder in [Holder::Process, Holder::Outside] {
        let memory = Memory::default();
        let engine = memory.open(options()).unwrap();
        let name = QueueName::new("orders").unwrap();
        engine.configure(name.clone(), contract::QueueOptions::default()).await.unwrap();
        let event = |id: &str| Publish::new(gristmill_core::Event::new(id, "/test", "t"), [name.clone()]);
        engine.publish(vec![event("1"), event("2"), event("3")]).await.unwrap();
        let claimed = engine.claim(Claim { holder, ..Claim::new(name.clone(), 2) }).await.unwrap();
        assert_eq!(claimed.len(), 2);
        drop(engine);
        let store = memory.store();
        let mut tx = Tx::new(store.current());
        let (key, _) = all(store.current(), Family::Ready, &[]).remove(0);
        replace(&mut tx, Family::Ready, &key, vec![9]);
        store.commit(tx.into_writes()).unwrap();

        let engine = memory.open(options()).unwrap();
        let left = engine.claim(Claim::new(name.clone(), 9)).await.unwrap();
        let ids: Vec<_> = left.iter().map(|delivery| delivery.event.id.as_str()).collect();
        let expected: &[&str] = if holder == Holder::Process { &["2", "3"] } else { &["3"] };
        assert!(expected.ends_with(&ids) && !ids.is_empty(), "{holder:?}: {ids:?}");
        let report = engine.verify().await.unwrap();
        let named =
            report.problems.iter().any(|problem| problem.family == "ready" && problem.what.contains("version 9"));
        assert!(named, "{holder:?}: {report}");
    }
}
