//! `#[handler]`: the function as it is written, and beside it the component's export, which calls it.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType, Type};

const SHAPE: &str = "a handler looks like `fn handle(event: Event<T>) -> Result<(), Error>`";

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    match parse(arguments, item.clone()) {
        Ok(handler) => {
            let export = handler.export();
            quote! { #item #export }
        }
        // The function stays, so that this is the only error and its uses still resolve.
        Err(error) => {
            let error = error.into_compile_error();
            quote! { #item #error }
        }
    }
}

struct Handler {
    function: ItemFn,
    argument: Type,
}

fn parse(arguments: TokenStream, item: TokenStream) -> syn::Result<Handler> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "`#[handler]` takes no arguments"));
    }
    let function: ItemFn = syn::parse2(item)
        .map_err(|error| Error::new(error.span(), format!("`#[handler]` belongs on a function: {SHAPE}")))?;
    let signature = &function.sig;
    if let Some(keyword) = &signature.asyncness {
        return Err(Error::new_spanned(keyword, "a handler cannot be async: it handles one event and returns"));
    }
    if let Some(keyword) = &signature.unsafety {
        return Err(Error::new_spanned(keyword, "a handler cannot be unsafe"));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(abi, "a handler is a plain Rust function, without `extern`"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(&signature.generics, "a handler cannot be generic: name the type of its data"));
    }
    let argument = match signature.inputs.iter().collect::<Vec<_>>()[..] {
        [FnArg::Typed(argument)] => (*argument.ty).clone(),
        [] => return Err(Error::new_spanned(&signature.ident, format!("the event is missing: {SHAPE}"))),
        [FnArg::Receiver(receiver)] => {
            return Err(Error::new_spanned(receiver, format!("a handler is not a method: {SHAPE}")));
        }
        _ => return Err(Error::new_spanned(&signature.inputs, format!("a handler takes one event: {SHAPE}"))),
    };
    Ok(Handler { function, argument })
}

impl Handler {
    fn export(&self) -> TokenStream {
        let name = &self.function.sig.ident;
        let argument = &self.argument;
        let check_argument = quote_spanned! { argument.span() =>
            ::gristmill_sdk::__private::check_argument::<#argument>();
        };
        let check_answer = match &self.function.sig.output {
            ReturnType::Type(_, answer) if !matches!(**answer, Type::ImplTrait(_)) => quote_spanned! { answer.span() =>
                ::gristmill_sdk::__private::check_answer::<#answer>();
            },
            _ => TokenStream::new(),
        };
        quote! {
            // Checked on every target, so that tests find a wrong signature, too.
            const _: () = {
                #check_argument
                #check_answer
                let _ = #name;
            };
            #[cfg(target_arch = "wasm32")]
            const _: () = {
                struct __GristmillHandler;
                impl ::gristmill_sdk::__private::Guest for __GristmillHandler {
                    fn handle(
                        delivery: ::gristmill_sdk::__private::WitDelivery,
                    ) -> ::gristmill_sdk::__private::WitVerdict {
                        ::gristmill_sdk::__private::run(#name, delivery)
                    }
                }
                ::gristmill_sdk::__private::export!(
                    __GristmillHandler with_types_in ::gristmill_sdk::__private::bindings
                );
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(arguments: TokenStream, item: TokenStream) -> String {
        parse(arguments, item).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_function_of_one_event_is_a_handler() {
        let item = quote! { pub(crate) fn handle(event: Event<Order>) -> Result<(), Error> { Ok(()) } };
        let expanded = expand(TokenStream::new(), item.clone()).to_string();
        assert!(expanded.starts_with(&item.to_string()), "{expanded}");
        assert!(!expanded.contains("compile_error"), "{expanded}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let nothing = TokenStream::new;
        let cases = [
            (quote! { retry = 3 }, quote! { fn h(e: Event) {} }, "takes no arguments"),
            (nothing(), quote! { struct Handler; }, "belongs on a function"),
            (nothing(), quote! { async fn h(e: Event) {} }, "cannot be async"),
            (nothing(), quote! { unsafe fn h(e: Event) {} }, "cannot be unsafe"),
            (nothing(), quote! { extern "C" fn h(e: Event) {} }, "without `extern`"),
            (nothing(), quote! { fn h<T>(e: Event<T>) {} }, "cannot be generic"),
            (nothing(), quote! { fn h() {} }, "the event is missing"),
            (nothing(), quote! { fn h(&self) {} }, "not a method"),
            (nothing(), quote! { fn h(a: Event, b: u32) {} }, "takes one event"),
        ];
        for (arguments, item, expected) in cases {
            let text = item.to_string();
            let error = error(arguments, item);
            assert!(error.contains(expected), "{text}: {error:?}");
        }
    }
}
