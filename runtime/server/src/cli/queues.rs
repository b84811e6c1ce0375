//! `gristmill queues`.

use std::process::ExitCode;
use std::time::Duration;

use gristmill_core::Timestamp;

use super::args::{Pause, Queues, Resume};
use super::runtime::Runtime;
use super::screen::{Screen, print};
use super::table::{Column, Table};
use super::text::{age, one_line, short};
use crate::http::model::Queue;

pub(super) async fn queues(
    runtime: &Runtime,
    args: &Queues,
    screen: Screen,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let list = runtime.queues().await?;
    if args.json {
        screen.json(&list)?;
    } else if list.items.is_empty() {
        eprintln!("there are no queues: the deployment has no handler");
    } else {
        print(&table(&list.items, now).render(screen))?;
        for note in list.items.iter().filter_map(note) {
            eprintln!("{note}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn pause(runtime: &Runtime, args: &Pause, screen: Screen) -> anyhow::Result<ExitCode> {
    let queue = runtime.pause(&args.queue, args.reason.as_deref()).await?;
    if args.json {
        screen.json(&queue)?;
    } else {
        let reason = queue.pause_reason.as_deref().unwrap_or_default();
        print(&format!("{} is paused: {}\n", queue.name, one_line(reason)))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn resume(runtime: &Runtime, args: &Resume, screen: Screen) -> anyhow::Result<ExitCode> {
    let queue = runtime.resume(&args.queue).await?;
    if args.json {
        screen.json(&queue)?;
    } else {
        print(&format!("{} goes on\n", queue.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(queues: &[Queue], now: Timestamp) -> Table {
    let mut table = Table::new([
        Column::Key("QUEUE"),
        Column::Number("READY"),
        Column::Number("LEASED"),
        Column::Rare("WAITING"),
        Column::Number("SCHEDULED"),
        Column::Number("DONE"),
        Column::Number("DEAD"),
        Column::Rare("CANCELLED"),
        Column::Number("OLDEST"),
        Column::Number("NEXT"),
        Column::Key("STATUS"),
    ]);
    for queue in queues {
        let oldest = queue.oldest_ready_ms.map(|ms| short(Duration::from_millis(ms)));
        table.row([
            queue.name.to_string(),
            queue.ready.to_string(),
            queue.leased.to_string(),
            queue.waiting.to_string(),
            queue.scheduled.to_string(),
            queue.done.to_string(),
            queue.dead.to_string(),
            queue.cancelled.to_string(),
            oldest.unwrap_or_else(|| "-".to_owned()),
            queue.next_due.map_or_else(|| "-".to_owned(), |due| age(now, due.0)),
            status(queue).to_owned(),
        ]);
    }
    table
}

/// Whether its entries are handled.
fn status(queue: &Queue) -> &'static str {
    match (queue.paused, &queue.handler) {
        (true, _) => "paused",
        (false, None) => "orphan",
        (false, Some(_)) => "open",
    }
}

/// Why the entries of a queue are not handled; `None`: they are.
fn note(queue: &Queue) -> Option<String> {
    let name = &queue.name;
    match (queue.paused, &queue.handler) {
        (true, _) => match queue.pause_reason.as_deref().filter(|reason| !reason.is_empty()) {
            Some(reason) => Some(format!("{name} is paused: {}", one_line(reason))),
            None => Some(format!("{name} is paused")),
        },
        (false, None) => Some(format!("{name} has no handler in this deployment")),
        (false, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use gristmill_core::QueueName;

    use super::*;
    use crate::http::model::{Time, Totals};

    fn queue(name: &str) -> Queue {
        let name = QueueName::new(name).unwrap();
        Queue {
            handler: Some(name.clone()),
            name,
            paused: false,
            pause_reason: None,
            scheduled: 1,
            waiting: 0,
            ready: 12_345,
            leased: 4,
            done: 0,
            dead: 2,
            cancelled: 0,
            bytes: 1_000,
            oldest_ready_ms: Some(180_000),
            next_due: Some(Time(Timestamp::EPOCH.after(Duration::from_secs(30)))),
            totals: Totals::default(),
        }
    }

    #[test]
    fn a_queue_is_a_row() {
        let expected = "\
QUEUE   READY  LEASED  SCHEDULED  DONE  DEAD  OLDEST    NEXT  STATUS
orders  12345       4          1     0     2      3m  in 30s  open
";
        assert_eq!(table(&[queue("orders")], Timestamp::EPOCH).render(Screen::Plain), expected);
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_shown() {
        let queues = [
            Queue { waiting: 7, cancelled: 1, ..queue("keyed") },
            Queue { paused: true, pause_reason: Some("the bank is down".into()), ..queue("paused") },
            Queue { handler: None, ..queue("orphan") },
        ];
        let expected = "\
QUEUE   READY  LEASED  WAITING  SCHEDULED  DONE  DEAD  CANCELLED  OLDEST    NEXT  STATUS
keyed   12345       4        7          1     0     2          1      3m  in 30s  open
paused  12345       4        0          1     0     2          0      3m  in 30s  paused
orphan  12345       4        0          1     0     2          0      3m  in 30s  orphan
";
        assert_eq!(table(&queues, Timestamp::EPOCH).render(Screen::Plain), expected);
        let wide = table(&queues, Timestamp::EPOCH).render(Screen::Terminal { width: 100 });
        assert!(wide.lines().all(|line| line.chars().count() <= 100) && wide.contains(" orphan"), "{wide}");
        let notes: Vec<_> = queues.iter().filter_map(note).collect();
        assert_eq!(notes, ["paused is paused: the bank is down", "orphan has no handler in this deployment"]);
    }
}
