//! What goes through the pipes between the host and its compiler: one order, one answer. Both are of one version, so that
//! nothing here has to last.

use std::time::Duration;

use crate::compile::Kind;
use crate::platform::Model;

/// What an order begins with.
const MAGIC: &[u8; 8] = b"gm-order";

/// What to compile, and within which limits. The component's bytes follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) kind: Kind,
    pub(super) model: Model,
    pub(super) count_fuel: bool,
    /// In whole seconds.
    pub(super) cpu: Duration,
    pub(super) memory: u64,
    /// How many bytes follow.
    pub(super) len: u64,
}

impl Order {
    pub(super) const LEN: usize = MAGIC.len() + 3 + 3 * 8;

    pub(super) fn encode(&self) -> Vec<u8> {
        let flags = [self.kind == Kind::Module, self.model == Model::Async, self.count_fuel].map(u8::from);
        let numbers = [self.cpu.as_secs(), self.memory, self.len].map(u64::to_le_bytes);
        [&MAGIC[..], &flags, numbers.as_flattened()].concat()
    }

    /// `None`: it is none.
    pub(super) fn decode(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (flags, rest) = rest.split_first_chunk::<3>()?;
        let [is_module, is_async, count_fuel] = flags.map(|flag| flag == 1);
        let (numbers, _) = rest.as_chunks::<8>();
        let [cpu, memory, len] = <[[u8; 8]; 3]>::try_from(numbers).ok()?.map(u64::from_le_bytes);
        Some(Self {
            kind: if is_module { Kind::Module } else { Kind::Component },
            model: if is_async { Model::Async } else { Model::Plain },
            count_fuel,
            cpu: Duration::from_secs(cpu),
            memory,
            len,
        })
    }
}

/// What became of an order. It says so with its last byte; in front of that is what belongs to it. It counts if the
/// compiler ends with success, as it does when it has written all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Here is the code.
    Code,
    /// There is none, in the engine's words.
    Refused,
}

impl Answer {
    pub(super) const fn mark(&self) -> u8 {
        match self {
            Self::Code => b'+',
            Self::Refused => b'-',
        }
    }

    /// The answer, and what belongs to it.
    pub(super) fn split(mut answer: Vec<u8>) -> Option<(Self, Vec<u8>)> {
        let mark = answer.pop()?;
        let answers = [Self::Code, Self::Refused];
        Some((answers.into_iter().find(|answer| answer.mark() == mark)?, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        for (kind, model, count_fuel) in [
            (Kind::Component, Model::Plain, false),
            (Kind::Module, Model::Plain, false),
            (Kind::Component, Model::Async, false),
            (Kind::Component, Model::Plain, true),
        ] {
            let order = Order { kind, model, count_fuel, cpu: Duration::from_secs(7), memory: 1 << 40, len: 3 };
            let mut bytes: [u8; Order::LEN] = order.encode().try_into().unwrap();
            assert_eq!(Order::decode(&bytes), Some(order));
            bytes[0] ^= 1;
            assert_eq!(Order::decode(&bytes), None);
        }
    }
}
