//! What starts a compiler, hands it a component, and says what became of it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tracing::error;

use super::message::{Answer, Order};
use super::{ChildCompiler, Job};
use crate::error::{LoadError, printable};

/// How much is read of what it complains, in bytes.
const MAX_SAID: u64 = 4 << 10;
/// How a process of Rust ends that panics.
const PANICKED: i32 = 101;
/// What a process of Rust says when it gets no memory, or no thread for lack of it.
const NO_MEMORY: [&str; 3] = ["memory allocation of ", "(os error 11)", "(os error 12)"];

/// Compiles in a child, which ends if this is dropped.
pub(super) async fn compile(child: &ChildCompiler, job: &Job) -> Result<Vec<u8>, LoadError> {
    let cpu =
        Duration::from_secs(child.cpu.as_secs() + u64::from(child.cpu.subsec_nanos() > 0)).max(Duration::from_secs(1));
    let order = Order {
        kind: job.kind,
        model: job.model,
        count_fuel: job.count_fuel,
        cpu,
        memory: child.memory,
        len: job.bytes.len() as u64,
    };
    let process = start(child).map_err(|error| LoadError::CompilerStart {
        program: child.program.display().to_string(),
        reason: error.to_string(),
    })?;
    let talk = talk(process, &order, &job.bytes);
    let ended = tokio::time::timeout(child.patience, talk).await;
    let ended = ended.map_err(|_| LoadError::CompileWait { limit: child.patience })?;
    ended.map_err(|error| LoadError::Compiler { how: error.to_string() })?.judge(&order)
}

fn start(child: &ChildCompiler) -> io::Result<Child> {
    Command::new(&child.program)
        .arg0("gristmill")
        .args(&child.args)
        .env_clear()
        .envs(child.env.iter().map(|(name, value)| (name, value)))
        // Whoever stops this process at its terminal does not mean the compiler.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// How a compiler ended, and what it had to say.
struct Ended {
    status: ExitStatus,
    answer: Vec<u8>,
    complaint: String,
}

async fn talk(mut process: Child, order: &Order, bytes: &[u8]) -> io::Result<Ended> {
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (process.stdin.take(), process.stdout.take(), process.stderr.take())
    else {
        return Err(io::Error::other("it has no pipes"));
    };
    let send = async {
        stdin.write_all(&order.encode()).await?;
        stdin.write_all(bytes).await
    };
    // Whoever does not read it all says why, or does not: nothing has to be made of it here.
    let (_, answer, complaint) =
        tokio::join!(send, read(stdout, most(order).saturating_add(1)), read(stderr, MAX_SAID));
    let status = process.wait().await?;
    // Open until now: it ends where its stdin does.
    drop(stdin);
    Ok(Ended { status, answer: answer?, complaint: String::from_utf8_lossy(&complaint?).into_owned() })
}

/// How much code there may be: it is in the child's memory twice.
fn most(order: &Order) -> u64 {
    order.memory / 2
}

/// All that comes, of which `max` bytes are kept.
async fn read(mut from: impl AsyncRead + Unpin, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut from).take(max).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

impl Ended {
    fn judge(self, order: &Order) -> Result<Vec<u8>, LoadError> {
        let Self { status, answer, complaint } = self;
        if status.signal() == Some(Signal::XCPU.as_raw()) {
            return Err(LoadError::CompileTime { limit: order.cpu });
        }
        if status.success() {
            if answer.len() as u64 > most(order) {
                return Err(LoadError::CompileMemory { limit: order.memory });
            }
            return match Answer::split(answer) {
                Some((Answer::Code, code)) => Ok(code),
                Some((Answer::Refused, reason)) => {
                    Err(LoadError::DoesNotCompile { reason: printable(&String::from_utf8_lossy(&reason)) })
                }
                None => Err(LoadError::Compiler { how: "it said nothing".to_owned() }),
            };
        }
        if NO_MEMORY.iter().any(|words| complaint.contains(words)) {
            return Err(LoadError::CompileMemory { limit: order.memory });
        }
        if status.code() == Some(PANICKED) {
            error!(complaint = printable(&complaint), "the compiler panicked");
            return Err(LoadError::Fault);
        }
        let said = complaint.lines().next().map(|line| format!(": {}", printable(line))).unwrap_or_default();
        Err(LoadError::Compiler { how: format!("it ended with {status}{said}") })
    }
}
