//! Links `wasi:http`, of WASI 0.2 and of WASI 0.3.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi_http::p2::add_only_http_to_linker_async;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, IoError, Method};
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::http::types as types3;
use wasmtime_wasi_http::{Error, WasiHttpView as _};

use crate::provided::{WASI, WASI3};
use crate::state::State;

/// The longest method and the longest host with its port that a request may have, in bytes: what a guest keeps in requests is
/// the host's memory.
const MAX_METHOD_LEN: usize = 64;
const MAX_AUTHORITY_LEN: usize = 300;

/// Links types and outgoing handler. Wasmtime's own `http-error-code` does not know the errors that its streams of bodies
/// end with, so that one is ours.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    add_only_http_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    let error_code = |mut store: StoreContextMut<'_, State>, (error,): (Resource<IoError>,)| {
        let error = store.data_mut().ctx().table.get(&error)?;
        let code = error.downcast_ref::<ErrorCode>().cloned();
        Ok((code.or_else(|| error.downcast_ref::<Error>().map(code_of)),))
    };
    let set_method = |mut store: StoreContextMut<'_, State>,
                      (request, method): (Resource<HostOutgoingRequest>, Method)| {
        let is_long = matches!(&method, Method::Other(name) if name.len() > MAX_METHOD_LEN);
        Ok((if is_long {
            Err(())
        } else {
            types::HostOutgoingRequest::set_method(&mut store.data_mut().http(), request, method)?
        },))
    };
    let set_authority =
        |mut store: StoreContextMut<'_, State>,
         (request, authority): (Resource<HostOutgoingRequest>, Option<String>)| {
            Ok((if is_long_authority(authority.as_deref()) {
                Err(())
            } else {
                types::HostOutgoingRequest::set_authority(&mut store.data_mut().http(), request, authority)?
            },))
        };
    let mut types = linker.instance(&format!("wasi:http/types@{WASI}"))?;
    types.func_wrap("http-error-code", error_code)?;
    types.func_wrap("[method]outgoing-request.set-method", set_method)?;
    types.func_wrap("[method]outgoing-request.set-authority", set_authority)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same for WASI 0.3: types and client.
pub(crate) fn link_async(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    p3::add_to_linker(linker)?;
    linker.allow_shadowing(true);
    let set_method = |mut store: StoreContextMut<'_, State>,
                      (request, method): (Resource<p3::Request>, types3::Method)| {
        let is_long = matches!(&method, types3::Method::Other(name) if name.len() > MAX_METHOD_LEN);
        Ok((if is_long {
            Err(())
        } else {
            types3::HostRequest::set_method(&mut store.data_mut().http(), request, method)?
        },))
    };
    let set_authority = |mut store: StoreContextMut<'_, State>,
                         (request, authority): (Resource<p3::Request>, Option<String>)| {
        let is_long = is_long_authority(authority.as_deref());
        Ok((if is_long {
            Err(())
        } else {
            types3::HostRequest::set_authority(&mut store.data_mut().http(), request, authority)?
        },))
    };
    let mut types = linker.instance(&format!("wasi:http/types@{WASI3}"))?;
    types.func_wrap("[method]request.set-method", set_method)?;
    types.func_wrap("[method]request.set-authority", set_authority)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn is_long_authority(authority: Option<&str>) -> bool {
    authority.is_some_and(|authority| authority.len() > MAX_AUTHORITY_LEN)
}

/// The code of an error that a response's body may end with.
fn code_of(error: &Error) -> ErrorCode {
    match error {
        Error::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        Error::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        Error::HttpResponseHeaderSectionSize(size) => ErrorCode::HttpResponseTrailerSectionSize(*size),
        Error::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        Error::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        Error::HttpProtocolError => ErrorCode::HttpProtocolError,
        other => ErrorCode::InternalError(Some(other.to_string())),
    }
}
