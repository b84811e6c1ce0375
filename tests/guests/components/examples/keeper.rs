//! Does to the state what the event's data says, so that each test shows all that its guest does.
//!
//! The data is `{"draft": 1 or 2, "do": [[operation, arguments …], …], "then": "ack", "retry", "reject" or "trap"}`. What
//! each operation answered is the result of an ack, and the reason of a retry or a reject, as a list. The first argument
//! is a bucket; it is opened at its first use and kept.
//!
//! | operation | answers |
//! | --- | --- |
//! | `["get", b, key]` | the value as text, or null |
//! | `["set", b, key, value]` | true |
//! | `["fill", b, prefix, count]` | true; writes `count` keys with `set-many` |
//! | `["large", b, key, bytes]` | true; writes that many bytes |
//! | `["delete", b, key]` | true |
//! | `["exists", b, key]` | true or false |
//! | `["list", b]` | all keys, page by page |
//! | `["pages", b]` | how many keys each page had |
//! | `["increment", b, key, by]` | the sum |
//! | `["get-many", b, key, …]` | `[key, value]` or null for each |
//! | `["set-many", b, key, value, …]` | true |
//! | `["delete-many", b, key, …]` | true |
//! | `["cas", b, key, value]` | true, or the value that was there instead |
//! | `["cas-late", b, key, value]` | the same, but sets the key in between; then tries again with what it was given |
//! | `["cursor", b]` | what comes of a cursor that nobody gave out |
//!
//! What is refused answers `{"error": "…"}`.

// Its bindings exist in guests only.
#![cfg(target_arch = "wasm32")]

use std::collections::BTreeMap;

use gristmill_sdk::IntoVerdict as _;
use gristmill_sdk::{Error, Event, Json, Verdict, handler};
use serde_json::{Value, json};

#[allow(warnings, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package gristmill:keeper;
            world keeper {
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        world: "gristmill:keeper/keeper",
        generate_all,
    });
}

#[derive(serde::Deserialize)]
struct Script {
    draft: u8,
    r#do: Vec<Vec<Value>>,
    then: String,
}

#[handler]
fn keep(event: Event<Script>) -> Result<Verdict, Error> {
    let script = event.data;
    let answers = match script.draft {
        1 => first::run(&script.r#do),
        _ => second::run(&script.r#do),
    };
    match script.then.as_str() {
        "ack" => Ok(Json(json!(answers)).into_verdict()),
        "retry" => Err(Error::retry(json!(answers).to_string())),
        "trap" => panic!("in the middle of it"),
        _ => Err(Error::reject(json!(answers).to_string())),
    }
}

fn text(argument: Option<&Value>) -> &str {
    argument.and_then(Value::as_str).unwrap_or_default()
}

fn number(argument: Option<&Value>) -> i64 {
    argument.and_then(Value::as_i64).unwrap_or_default()
}

fn shown(value: Vec<u8>) -> Value {
    json!(String::from_utf8_lossy(&value))
}

fn texts(arguments: &[Value]) -> Vec<String> {
    arguments.iter().map(|argument| text(Some(argument)).to_owned()).collect()
}

/// What both drafts have alike; `$extra` answers the rest, and `$delta` is the type of increments.
macro_rules! keeper {
    ($module:ident, $package:ident, $delta:ty, $item:expr, $page:path, $extra:path) => {
        mod $module {
            use super::bindings::wasi::$package::{atomics, batch, store};
            use super::*;

            pub(super) fn run(script: &[Vec<Value>]) -> Vec<Value> {
                let mut buckets = BTreeMap::new();
                let mut run = |line: &[Value]| -> Result<Value, store::Error> {
                    let name = text(line.get(1)).to_owned();
                    if !buckets.contains_key(&name) {
                        buckets.insert(name.clone(), store::open(&name)?);
                    }
                    operate(&buckets[&name], line)
                };
                script.iter().map(|line| run(line).unwrap_or_else(|error| refusal(&error))).collect()
            }

            fn refusal(error: &store::Error) -> Value {
                json!({ "error": match error {
                    store::Error::NoSuchStore => "no-such-store",
                    store::Error::AccessDenied => "access-denied",
                    store::Error::Other(reason) => reason,
                }})
            }

            fn operate(bucket: &store::Bucket, line: &[Value]) -> Result<Value, store::Error> {
                let (operation, rest) = (text(line.first()), &line[2..]);
                let key = text(rest.first());
                match operation {
                    "get" => Ok(bucket.get(key)?.map_or(Value::Null, shown)),
                    "set" => bucket.set(key, text(rest.get(1)).as_bytes()).map(|()| json!(true)),
                    "large" => bucket.set(key, &vec![b'x'; number(rest.get(1)) as usize]).map(|()| json!(true)),
                    "delete" => bucket.delete(key).map(|()| json!(true)),
                    "exists" => bucket.exists(key).map(|there| json!(there)),
                    "list" => Ok(json!(pages(bucket)?.concat())),
                    "pages" => Ok(json!(pages(bucket)?.iter().map(Vec::len).collect::<Vec<_>>())),
                    "increment" => {
                        let by = <$delta>::try_from(number(rest.get(1))).unwrap_or_default();
                        atomics::increment(bucket, key, by).map(|sum| json!(sum))
                    }
                    "get-many" => {
                        let found = batch::get_many(bucket, &texts(rest))?;
                        Ok(found.into_iter().map($item).collect())
                    }
                    "set-many" => {
                        let pairs = texts(rest);
                        let pairs: Vec<_> =
                            pairs.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone().into_bytes())).collect();
                        batch::set_many(bucket, &pairs).map(|()| json!(true))
                    }
                    "fill" => {
                        let pair = |n| (format!("{key}{n:06}"), Vec::new());
                        let pairs: Vec<_> = (0..number(rest.get(1))).map(pair).collect();
                        batch::set_many(bucket, &pairs).map(|()| json!(true))
                    }
                    "delete-many" => batch::delete_many(bucket, &texts(rest)).map(|()| json!(true)),
                    _ => $extra(bucket, operation, key, text(rest.get(1)).as_bytes()),
                }
            }

            fn pages(bucket: &store::Bucket) -> Result<Vec<Vec<String>>, store::Error> {
                let mut pages = Vec::new();
                let mut cursor = None;
                loop {
                    let page = $page(bucket, &cursor)?;
                    pages.push(page.keys);
                    cursor = page.cursor;
                    if cursor.is_none() {
                        return Ok(pages);
                    }
                }
            }
        }
    };
}

use bindings::wasi::{keyvalue0_2_0_draft as draft, keyvalue0_2_0_draft2 as draft2};

keeper!(
    first,
    keyvalue0_2_0_draft,
    u64,
    |item: Option<(String, Vec<u8>)>| item.map_or(Value::Null, |(key, value)| json!([key, shown(value)])),
    page_of_first,
    only_first
);
keeper!(
    second,
    keyvalue0_2_0_draft2,
    i64,
    |(key, value): (String, Option<Vec<u8>>)| value.map_or(Value::Null, |value| json!([key, shown(value)])),
    page_of_second,
    only_second
);

fn page_of_first(
    bucket: &draft::store::Bucket,
    cursor: &Option<u64>,
) -> Result<draft::store::KeyResponse, draft::store::Error> {
    bucket.list_keys(*cursor)
}

fn page_of_second(
    bucket: &draft2::store::Bucket,
    cursor: &Option<String>,
) -> Result<draft2::store::KeyResponse, draft2::store::Error> {
    bucket.list_keys(cursor.as_deref())
}

fn only_first(bucket: &draft::store::Bucket, operation: &str, _: &str, _: &[u8]) -> Result<Value, draft::store::Error> {
    match operation {
        "cursor" => bucket.list_keys(Some(7)).map(|page| json!(page.keys)),
        unknown => Ok(json!(format!("no operation is called {unknown}"))),
    }
}

fn only_second(
    bucket: &draft2::store::Bucket,
    operation: &str,
    key: &str,
    value: &[u8],
) -> Result<Value, draft2::store::Error> {
    use draft2::atomics::{Cas, CasError, swap};

    let tell = |result| match result {
        Ok(()) => Ok((json!(true), None)),
        Err(CasError::StoreError(error)) => Err(error),
        Err(CasError::CasFailed(cas)) => Ok((cas.current()?.map_or(Value::Null, shown), Some(cas))),
    };
    match operation {
        "cas" => tell(swap(Cas::new(bucket, key)?, value)).map(|(told, _)| told),
        "cas-late" => {
            let cas = Cas::new(bucket, key)?;
            bucket.set(key, b"late")?;
            let (told, fresh) = tell(swap(cas, value))?;
            let again = fresh.map(|fresh| tell(swap(fresh, value))).transpose()?;
            Ok(json!([told, again.map(|(told, _)| told)]))
        }
        "cursor" => bucket.list_keys(Some("zzz")).map(|page| json!(page.keys)),
        unknown => Ok(json!(format!("no operation is called {unknown}"))),
    }
}
