//! Dead letters, from the command line.

use super::rig::{Deployment, actor, event, outcomes};
use super::{about, after, one_actor, text};
use serde_json::{Value, json};

#[test]
fn dead_letters_can_be_looked_at_and_redriven() {
    let deployment = one_actor();
    let running = after(&deployment, &[event("1", "test.reject", json!(1)), event("2", "test.reject", json!(1))]);
    let list = text(&running.client(&["dead", "list", "actor"]).stdout);
    assert!(list.contains("bad order") && list.contains("reject"), "{list}");
    let entry = running.entry("actor", "dead", "1")["entry"].as_str().unwrap().to_owned();
    let shown = text(&running.client(&["dead", "show", &entry]).stdout);
    assert!(shown.contains("bad order") && shown.contains("test.reject"), "{shown}");
    let redriven = running.client(&["dead", "redrive", &entry]);
    assert!(redriven.status.success(), "{}", text(&redriven.stderr));
    let log = running.await_log("dead-lettered");
    assert_eq!(log["entry"], entry.as_str());
    let again = running.get(&format!("/v1/entries/{entry}"));
    assert_eq!(outcomes(&again), ["reject", "reject"], "the history stays");
    assert_eq!(again["attempts"], 1, "the attempts count anew");
    let unknown = running.client(&["dead", "redrive", "000000-1"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", text(&unknown.stderr));
}

#[test]
fn dead_letters_of_all_queues_come_in_pages() {
    let queues = ["a", "b", "c"].map(|name| actor(name, &format!("{{ subject = \"*{name}*\" }}"), ""));
    let deployment = Deployment::new(&queues);
    let events: Vec<_> = (0..4).map(|n| about("ac", &n.to_string(), "test.reject")).collect();
    let running = after(&deployment, &events);
    for limit in ["1", "2", "3", "4", "5", "7", "8", "1000"] {
        let (mut seen, mut pages, mut cursor) = (Vec::new(), 0, None);
        loop {
            let next: Vec<_> = cursor.iter().flat_map(|cursor: &String| ["--cursor", cursor]).collect();
            let output = running.client(&[&["dead", "list", "--json", "--limit", limit], &next[..]].concat());
            assert!(output.status.success(), "{}", text(&output.stderr));
            let page: Value = serde_json::from_slice(&output.stdout).unwrap();
            let items = page["items"].as_array().unwrap();
            assert!(!items.is_empty(), "a page of {limit} is empty");
            pages += 1;
            seen.extend(items.iter().map(|item| (item["queue"].clone(), item["event"]["id"].clone())));
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        let all: Vec<_> =
            ["a", "c"].iter().flat_map(|queue| (0..4).map(move |n| (json!(queue), json!(n.to_string())))).collect();
        seen.sort_by_key(|(queue, id)| (queue.to_string(), id.to_string()));
        assert_eq!(seen, all, "in pages of {limit}");
        assert_eq!(pages, 8_usize.div_ceil(limit.parse().unwrap()), "pages of {limit}");
    }
    let told = text(&running.client(&["dead", "list", "--limit", "4"]).stderr);
    assert!(told.contains("there are more: gristmill dead list --cursor c:"), "{told}");
    let wrong = running.client(&["dead", "list", "--cursor", "nonsense"]);
    assert!(wrong.status.code() == Some(1) && text(&wrong.stderr).contains("--cursor: not what a list"));
}
