//! The process whose power is cut.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::{Clock, Event, Outcome, QueueName, RetryPolicy, SystemClock};
use gristmill_queue::{
    Change, Claim, Confirm, Engine, EngineOptions, OnLoss, Publish, Queue, QueueError, QueueOptions, Retention,
    RocksDb, Settle, SettleReply, StateWrite, Transacted, Transaction,
};

use super::checks::Ledger;
use super::disk::FileId;
use super::shim::Shim;

const DIRECTORY: &str = "GRISTMILL_POWER_DIRECTORY";
const WRITE_BUFFER: &str = "GRISTMILL_POWER_WRITE_BUFFER";
/// Nothing takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const BUCKET: &str = "ledger";
/// The key that every ack increments.
pub(crate) const ACKS: &str = "acks";
/// The key that every transaction increments.
pub(crate) const TRANSACTIONS: &str = "transactions";

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub(crate) async fn open(
    directory: &Path,
    clock: Arc<dyn Clock>,
    write_buffer: u64,
    on_loss: OnLoss,
) -> Result<Engine, QueueError> {
    let options =
        EngineOptions { clock, write_buffer, cache: 8 << 20, disk_reserve: 0, on_loss, ..EngineOptions::default() };
    let engine = RocksDb::open(directory, options)?;
    let retry = RetryPolicy { max_attempts: Some(3), ..RetryPolicy::default() };
    let done = Retention { age: None, count: None };
    let options = QueueOptions { retry, done, ..QueueOptions::default() };
    for name in ["work", "also", "sink", "probe"] {
        engine.configure(queue(name), options.clone()).await?;
    }
    Ok(engine)
}

fn say(line: std::fmt::Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    // One write for a line: a kill cuts between lines, or cuts the last one.
    if stdout.write_all(format!("@{line}\n").as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

/// The data of an event says its own length and content by the event's id: `…-LENGTH`.
pub(crate) fn data_of(id: &str) -> Option<Bytes> {
    let length: usize = id.rsplit_once('-')?.1.parse().ok()?;
    let seed = id.bytes().fold(7u8, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte));
    (length > 0).then(|| (0..length).map(|at| seed.wrapping_add((at % 251) as u8)).collect())
}

fn event(name: &str, n: u64, i: u64) -> Publish {
    // Some are large, and live apart; some go to two queues.
    let length = match (n + i) % 7 {
        0 => 4_097 + n % 20_000,
        1 => 0,
        _ => 50 + n % 300,
    };
    let both = (n + i).is_multiple_of(3);
    let id = format!("{name}-{n}-{i}-{}-{length}", if both { "both" } else { "one" });
    let mut event = Event::new(&id, "/child", "t");
    event.data = data_of(&id);
    let queues = if both { vec![queue("work"), queue("also")] } else { vec![queue("work")] };
    Publish::new(event, queues)
}

async fn publish(engine: &Engine, name: &str, largest: u64) {
    // A name of its own in every life.
    let name = format!("{name}{:x}", rand::random::<u32>());
    for n in 0u64.. {
        let batch: Vec<_> = (0..=n % largest).map(|i| event(&name, n, i)).collect();
        let ids: Vec<_> = batch.iter().map(|publish| publish.event.id.clone()).collect();
        for (id, accepted) in ids.iter().zip(engine.publish(batch).await.unwrap().results) {
            let entries = accepted.unwrap().entries;
            let entries: Vec<_> = entries.iter().map(|entry| entry.entry.as_str()).collect();
            say(format_args!("published {id} {}", entries.join(" ")));
        }
    }
}

fn write(key: String, change: Change) -> StateWrite {
    StateWrite { bucket: BUCKET.to_owned(), key, change }
}

async fn work(engine: &Engine, name: &str) {
    loop {
        let claim = Claim::new(queue(name), 8).wait(Duration::from_secs(1));
        for delivery in engine.claim(claim).await.unwrap() {
            say(format_args!("delivery {}", delivery.lease.delivery));
            let id = format!("{}-emitted-{}", delivery.entry, delivery.lease.delivery % 9 * 1_000);
            let mut emitted = Event::new(&id, format!("/handlers/{name}"), "emitted");
            emitted.subject = Some(delivery.entry.to_string());
            emitted.data = data_of(&id);
            let set = Change::Set(Bytes::from(delivery.lease.delivery.to_string()));
            let writes =
                vec![write(format!("done/{}", delivery.entry), set), write(ACKS.to_owned(), Change::Increment(1))];
            let (outcome, confirm) = match delivery.lease.delivery % 5 {
                0 => (Outcome::Retry { reason: "again".into(), after: None }, Confirm::Committed),
                1 => (Outcome::Ack { result: Some(Bytes::from_static(b"done")) }, Confirm::Durable),
                _ => (Outcome::Ack { result: None }, Confirm::Committed),
            };
            let settle = Settle {
                emits: vec![Publish::new(emitted, [queue("sink")])],
                transaction: Some(Transaction { revision: None, reads: Vec::new(), writes }),
                ..Settle::new(delivery.lease, outcome)
            };
            let reply = engine.settle(vec![settle], confirm).await.unwrap();
            assert!(matches!(reply[0], SettleReply::Settled(_)));
            if confirm == Confirm::Durable {
                say(format_args!("acked {}", delivery.entry));
            }
        }
    }
}

async fn transact(engine: &Engine) {
    let life = rand::random::<u32>();
    for n in 0u64.. {
        let key = format!("transaction/{life:x}-{n}");
        let writes = vec![
            write(key.clone(), Change::Set(Bytes::from_static(b"1"))),
            write(TRANSACTIONS.to_owned(), Change::Increment(1)),
        ];
        let transaction = Transaction { revision: None, reads: Vec::new(), writes };
        let reply = engine.transact(transaction).await.unwrap();
        assert!(matches!(reply, Transacted::Committed(_)));
        say(format_args!("transacted {key}"));
    }
}

/// What the child does.
pub(crate) async fn run() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let write_buffer = std::env::var(WRITE_BUFFER).unwrap().parse().unwrap();
    let engine = open(Path::new(&directory), Arc::new(SystemClock::new()), write_buffer, OnLoss::Refuse).await.unwrap();
    tokio::join!(
        publish(&engine, "a", 1),
        publish(&engine, "b", 8),
        publish(&engine, "c", 3),
        work(&engine, "work"),
        work(&engine, "work"),
        work(&engine, "also"),
        transact(&engine),
    );
}

/// The child, as its parent sees it. Killed when it is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Child {
    pub(crate) fn start(shim: &Shim, directory: &Path, record: &Path, write_buffer: u64, lies: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["child_process", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(WRITE_BUFFER, write_buffer.to_string())
            .env("LD_PRELOAD", shim.path())
            .env("POWER_RECORD", record)
            .stdout(Stdio::piped());
        if lies {
            command.env("POWER_LIES", "1");
        }
        let mut process = command.spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            // A line that was cut off is none.
            for line in stdout.lines().map_while(Result::ok) {
                // The test harness talks as well.
                if let Some((_, promise)) = line.split_once('@')
                    && sender.send(promise.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { process, lines, reader: Some(reader) }
    }

    /// Waits for so many promises.
    pub(crate) fn hear(&mut self, promises: usize, ledger: &mut Ledger) {
        for _ in 0..promises {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => ledger.note(&line),
                Err(error) => panic!("the child says nothing more: {error}; {:?}", self.process.try_wait()),
            }
        }
    }

    /// Stops it where it is, all of its threads.
    pub(crate) fn stop(&self) {
        let pid = self.process.id();
        assert!(Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap().success());
        let until = Instant::now() + PATIENCE;
        let is_stopped = || {
            std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| {
                // A thread that has just ended has stopped as well.
                let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { return true };
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            })
        };
        while !is_stopped() {
            assert!(Instant::now() < until, "the child does not stop");
            std::thread::yield_now();
        }
    }

    /// How far it has written each file that it has open.
    pub(crate) fn positions(&self) -> BTreeMap<FileId, u64> {
        let pid = self.process.id();
        let mut positions = BTreeMap::new();
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let fd = fd.unwrap();
            let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().display())).unwrap();
            let number = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            let flags = u32::from_str_radix(number("flags:"), 8).unwrap();
            let (Ok(meta), true) = (std::fs::metadata(fd.path()), flags & 3 == 1) else { continue };
            let at: u64 = number("pos:").parse().unwrap();
            if meta.is_file() && at > 0 {
                positions.insert((meta.dev(), meta.ino()), at);
            }
        }
        positions
    }

    /// Ends it, and listens to the last of what it has said.
    pub(crate) fn kill(mut self, ledger: &mut Ledger) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            ledger.note(&line);
        }
        self.reader.take().unwrap().join().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
