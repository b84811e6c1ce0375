//! `gristmill queues`.

use std::process::ExitCode;
use std::time::Duration;

use gristmill_core::Timestamp;

use super::args::Queues;
use super::runtime::Runtime;
use super::screen::{Screen, print};
use super::table::{Column, Table};
use super::text::{age, short};
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
    }
    Ok(ExitCode::SUCCESS)
}

fn table(queues: &[Queue], now: Timestamp) -> Table {
    let mut table = Table::new([
        Column::Key("QUEUE"),
        Column::Number("READY"),
        Column::Number("LEASED"),
        Column::Number("SCHEDULED"),
        Column::Number("DONE"),
        Column::Number("DEAD"),
        Column::Number("OLDEST"),
        Column::Number("NEXT DUE"),
        Column::Key("HANDLER"),
    ]);
    for queue in queues {
        let oldest = queue.oldest_ready_ms.map(|ms| short(Duration::from_millis(ms)));
        let handler = queue.handler.as_ref().map_or("none", |handler| handler.as_str());
        table.row([
            queue.name.to_string(),
            queue.ready.to_string(),
            queue.leased.to_string(),
            queue.scheduled.to_string(),
            queue.done.to_string(),
            queue.dead.to_string(),
            oldest.unwrap_or_else(|| "-".to_owned()),
            queue.next_due.map_or_else(|| "-".to_owned(), |due| age(now, due.0)),
            handler.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use gristmill_core::QueueName;

    use super::*;
    use crate::http::model::{Time, Totals};

    #[test]
    fn a_queue_is_a_row() {
        let queue = Queue {
            name: QueueName::new("orders").unwrap(),
            handler: None,
            paused: false,
            scheduled: 1,
            waiting: 0,
            ready: 12_345,
            leased: 4,
            done: 0,
            dead: 2,
            cancelled: 0,
            oldest_ready_ms: Some(180_000),
            next_due: Some(Time(Timestamp::EPOCH.after(Duration::from_secs(30)))),
            totals: Totals::default(),
        };
        let expected = "\
QUEUE   READY  LEASED  SCHEDULED  DONE  DEAD  OLDEST  NEXT DUE  HANDLER
orders  12345       4          1     0     2      3m    in 30s  none
";
        assert_eq!(table(&[queue], Timestamp::EPOCH).render(Screen::Plain), expected);
    }
}
