//! `wasi:keyvalue`, in both drafts that are in use, over one store.
//!
//! | file | holds |
//! | --- | --- |
//! | `overlay` | what one invocation sees of state: its own writes over one snapshot, and what it has read of it |
//! | `bindings` | generated from `wit/`, a module for each draft |
//! | `draft`, `draft2` | the functions of each draft, in terms of the overlay |
//! | `get_many` | the one function that has two types in the second draft |
//!
//! A handle is a name and a right, and nothing of an invocation: whoever keeps one means the invocation that uses it.

mod bindings;
mod draft;
mod draft2;
mod get_many;
mod overlay;

use bytes::Bytes;
use gristmill_core::state::{StateAccess, StateGrant, is_bucket_name};
use wasmtime::component::{HasSelf, Linker, Resource};

pub(crate) use self::get_many::linker_for;
pub(crate) use self::overlay::Overlay;
use crate::state::State;

/// A bucket that a guest has opened.
#[derive(Clone, Debug)]
#[allow(unreachable_pub, reason = "generated code re-exports it")]
pub struct Bucket {
    name: String,
    access: StateAccess,
}

/// A key and the value that a guest expects it to have.
#[derive(Clone, Debug)]
#[allow(unreachable_pub, reason = "generated code re-exports it")]
pub struct Cas {
    bucket: Bucket,
    key: String,
    expected: Option<Bytes>,
}

/// Why a call is refused. Each draft has a type of its own for this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoSuchStore,
    AccessDenied,
    Other(String),
}

type Answer<T> = Result<T, Refusal>;

impl Refusal {
    fn other(error: impl ToString) -> Self {
        Self::Other(error.to_string())
    }
}

impl Bucket {
    /// The bucket called `name`, as far as the handler may use it.
    fn open(name: String, grants: &[StateGrant]) -> Answer<Self> {
        match grants.iter().find(|grant| grant.bucket == name) {
            Some(grant) => Ok(Self { name, access: grant.access }),
            None if is_bucket_name(&name) => Err(Refusal::AccessDenied),
            None => Err(Refusal::NoSuchStore),
        }
    }

    /// Its name, for whoever is about to write.
    fn to_write(&self) -> Answer<&str> {
        match self.access {
            StateAccess::Write => Ok(&self.name),
            StateAccess::Read => Err(Refusal::AccessDenied),
        }
    }
}

impl State {
    fn open_bucket(&mut self, name: String) -> Answer<Resource<Bucket>> {
        let bucket = Bucket::open(name, &self.identity.grants.state)?;
        self.table.push(bucket).map_err(Refusal::other)
    }
}

/// Links both drafts.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use bindings::{draft, draft2};

    type Own = HasSelf<State>;
    draft::store::add_to_linker::<State, Own>(linker, |state| state)?;
    draft::atomics::add_to_linker::<State, Own>(linker, |state| state)?;
    draft::batch::add_to_linker::<State, Own>(linker, |state| state)?;
    draft2::store::add_to_linker::<State, Own>(linker, |state| state)?;
    draft2::atomics::add_to_linker::<State, Own>(linker, |state| state)?;
    draft2::batch::add_to_linker::<State, Own>(linker, |state| state)
}
