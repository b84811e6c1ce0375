//! What a handler is configured with, and `wasi:config`, through which it reads that: the release candidate, and both
//! drafts that components are built against.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use gristmill_core::Secret;
use wasmtime::component::{HasSelf, Linker};

use crate::state::State;

/// Keys and values, in the order of the keys. Any value may be a secret, so `Debug` shows the keys alone. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Configuration(Arc<BTreeMap<String, Secret>>);

impl Configuration {
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Secret> {
        self.0.get(key)
    }

    /// Every key and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    fn value(&self, key: &str) -> Option<String> {
        self.get(key).map(|value| value.reveal().to_owned())
    }

    fn values(&self) -> Vec<(String, String)> {
        self.iter().map(|(key, value)| (key.to_owned(), value.reveal().to_owned())).collect()
    }
}

impl FromIterator<(String, Secret)> for Configuration {
    fn from_iter<I: IntoIterator<Item = (String, Secret)>>(values: I) -> Self {
        Self(Arc::new(values.into_iter().collect()))
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[allow(missing_docs, unreachable_pub, reason = "generated code")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package gristmill:configuration;

            world configuration {
                import wasi:config/store@0.2.0-rc.1;
                import wasi:config/store@0.2.0-draft-2024-09-27;
                import wasi:config/runtime@0.2.0-draft;
            }
        ",
        require_store_data_send: true,
    });
}

use generated::wasi::config0_2_0_draft::runtime as draft;
use generated::wasi::config0_2_0_draft_2024_09_27::store as later_draft;
use generated::wasi::config0_2_0_rc_1::store as candidate;

macro_rules! serve {
    ($interface:ident, $error:ident) => {
        impl $interface::Host for State {
            fn get(&mut self, key: String) -> Result<Option<String>, $interface::$error> {
                Ok(self.configuration.value(&key))
            }

            fn get_all(&mut self) -> Result<Vec<(String, String)>, $interface::$error> {
                Ok(self.configuration.values())
            }
        }
    };
}

serve!(candidate, Error);
serve!(later_draft, Error);
serve!(draft, ConfigError);

/// Links all three.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    candidate::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    later_draft::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    draft::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}
