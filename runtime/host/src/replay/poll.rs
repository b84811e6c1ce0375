//! How commands of WASI preview 1 wait in a replay: `poll_oneoff`, as far as there is anything to wait for.
//!
//! The engine's own knows the clocks and does not say how long it has waited. In a replay there are no sockets, and files
//! and standard streams keep nobody waiting: whoever asks for one of those is told that it is ready.

use std::time::Duration;

use wasmtime::{Caller, Extern, Linker, Memory};

use super::Scene;
use super::clocks::Wait;
use crate::provided::PREVIEW1;
use crate::state::State;

/// Sizes of what is read and written, in bytes, and the most that one call may ask for.
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;
const MAX_SUBSCRIPTIONS: u32 = 1_024;

/// `subclockflags`: the time is one of the clock, and not from now.
const ABSOLUTE: u16 = 1;

/// What the guest is told.
#[derive(Clone, Copy)]
enum Errno {
    Success = 0,
    Fault = 21,
    Invalid = 28,
}

/// What a guest waits for.
#[derive(Clone, Copy)]
struct Subscription {
    user_data: u64,
    /// `eventtype`: 0 is a clock.
    kind: u8,
    /// `None`: it is ready.
    wait: Option<Wait>,
}

/// Takes the place of the engine's own, in a linker that is for replays only.
pub(crate) fn link_preview1(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap_async(PREVIEW1, "poll_oneoff", |mut caller: Caller<'_, State>, asked: (i32, i32, i32, i32)| {
        Box::new(async move {
            let (from, to, count, told) = asked;
            let [from, to, count, told] = [from, to, count, told].map(i32::cast_unsigned);
            let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return Errno::Invalid as i32 };
            match poll(&mut caller, memory, from, to, count, told).await {
                Ok(()) => Errno::Success as i32,
                Err(errno) => errno as i32,
            }
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn poll(
    caller: &mut Caller<'_, State>,
    memory: Memory,
    from: u32,
    to: u32,
    count: u32,
    told: u32,
) -> Result<(), Errno> {
    if count == 0 || count > MAX_SUBSCRIPTIONS {
        return Err(Errno::Invalid);
    }
    let scene = caller.data().scene.clone().ok_or(Errno::Invalid)?;
    let mut asked = vec![0; SUBSCRIPTION * count as usize];
    memory.read(&*caller, from as usize, &mut asked).map_err(|_| Errno::Fault)?;
    let asked: Vec<_> = asked.chunks_exact(SUBSCRIPTION).map(|bytes| read(bytes, &scene)).collect::<Result<_, _>>()?;

    // Whoever asks for something that is ready waits for nothing else.
    let first = if asked.iter().any(|asked| asked.wait.is_none()) {
        None
    } else {
        asked.iter().filter_map(|asked| asked.wait).min_by_key(|wait| wait.rank())
    };
    if let Some(first) = first {
        first.over().await;
        scene.clock().end(first);
    }
    let is_ready = |asked: &&Subscription| match (asked.wait, first) {
        (None, _) => true,
        (Some(wait), Some(first)) => wait.rank() <= first.rank(),
        (Some(_), None) => false,
    };
    let events: Vec<_> = asked.iter().filter(is_ready).flat_map(event).collect();
    let ready = u32::try_from(events.len() / EVENT).unwrap_or(u32::MAX);
    memory.write(&mut *caller, to as usize, &events).map_err(|_| Errno::Fault)?;
    memory.write(caller, told as usize, &ready.to_le_bytes()).map_err(|_| Errno::Fault)
}

fn read(bytes: &[u8], scene: &Scene) -> Result<Subscription, Errno> {
    let [kind] = field(bytes, 8)?;
    let user_data = u64::from_le_bytes(field(bytes, 0)?);
    if kind != 0 {
        return Ok(Subscription { user_data, kind, wait: None });
    }
    let (id, time) = (u32::from_le_bytes(field(bytes, 16)?), u64::from_le_bytes(field(bytes, 24)?));
    let is_absolute = u16::from_le_bytes(field(bytes, 40)?) & ABSOLUTE != 0;
    let clock = scene.clock();
    let time = match (id, is_absolute) {
        (0 | 1, false) => Duration::from_nanos(time),
        (0, true) => clock.until_wall(time),
        (1, true) => clock.until(time),
        _ => return Err(Errno::Invalid),
    };
    Ok(Subscription { user_data, kind, wait: (!time.is_zero()).then(|| clock.wait(time)) })
}

/// As the guest reads it: a stream or file has a byte, or room for one.
fn event(ready: &Subscription) -> [u8; EVENT] {
    let mut bytes = [0; EVENT];
    let (user_data, kind, available) = (ready.user_data.to_le_bytes(), ready.kind, u8::from(ready.kind != 0));
    for (at, byte) in user_data.into_iter().enumerate().chain([(10, kind), (16, available)]) {
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
    }
    bytes
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Errno> {
    bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::Fault)
}
