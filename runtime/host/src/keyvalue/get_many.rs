//! `get-many` of the second draft, which has had two types under one version: `list<option<tuple<string, list<u8>>>>`, as
//! in the first draft, and now `list<tuple<string, option<list<u8>>>>`. Components are built against either.

use std::borrow::Cow;

use wasmtime::StoreContextMut;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Resource, Type};

use super::Bucket;
use super::bindings::draft;
use crate::state::State;

const BATCH: &str = "wasi:keyvalue/batch@0.2.0-draft2";
const GET_MANY: &str = "get-many";

/// The linker that has `get-many` as the component knows it.
pub(crate) fn linker_for<'a>(
    linker: &'a Linker<State>,
    component: &Component,
) -> wasmtime::Result<Cow<'a, Linker<State>>> {
    if !is_older(component) {
        return Ok(Cow::Borrowed(linker));
    }
    let mut linker = linker.clone();
    linker.allow_shadowing(true);
    linker.instance(BATCH)?.func_wrap_async(
        GET_MANY,
        |mut store: StoreContextMut<'_, State>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move { Ok((draft::batch::Host::get_many(store.data_mut(), bucket, keys).await?,)) })
        },
    )?;
    Ok(Cow::Owned(linker))
}

fn is_older(component: &Component) -> bool {
    let ty = component.component_type();
    let engine = component.engine();
    let Some(ComponentItem::ComponentInstance(batch)) = ty.get_import(engine, BATCH).map(|import| import.ty) else {
        return false;
    };
    let Some(ComponentItem::ComponentFunc(get_many)) = batch.get_export(engine, GET_MANY).map(|export| export.ty)
    else {
        return false;
    };
    let Some(Type::Result(result)) = get_many.results().next() else { return false };
    matches!(result.ok(), Some(Type::List(items)) if matches!(items.ty(), Type::Option(_)))
}
