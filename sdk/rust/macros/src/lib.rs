//! The attribute behind `gristmill-sdk`, which re-exports and documents it.

mod handler;

use proc_macro::TokenStream;

/// See `gristmill_sdk::handler`.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    handler::expand(arguments.into(), item.into()).into()
}
