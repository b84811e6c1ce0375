//! The functions of `wasi:keyvalue@0.2.0-draft`.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::bindings::draft::{atomics, batch, store};
use super::{Bucket, Refusal};
use crate::state::State;

type Error = store::Error;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoSuchStore => Self::NoSuchStore,
            Refusal::AccessDenied => Self::AccessDenied,
            Refusal::Other(reason) => Self::Other(reason),
        }
    }
}

impl store::Host for State {
    async fn open(&mut self, identifier: String) -> Result<Result<Resource<Bucket>, Error>> {
        Ok(self.open_bucket(identifier).map_err(Error::from))
    }
}

impl store::HostBucket for State {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Result<Option<Vec<u8>>, Error>> {
        let bucket = self.table.get(&bucket)?;
        Ok(self.overlay.get(&bucket.name, &key).await.map(|value| value.map(Vec::from)).map_err(Error::from))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<Result<(), Error>> {
        let bucket = self.table.get(&bucket)?;
        let set = |name| self.overlay.write(name, vec![(key, Some(value.into()))]);
        Ok(bucket.to_write().and_then(set).map_err(Error::from))
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Result<(), Error>> {
        let bucket = self.table.get(&bucket)?;
        Ok(bucket.to_write().and_then(|name| self.overlay.write(name, vec![(key, None)])).map_err(Error::from))
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Result<bool, Error>> {
        let bucket = self.table.get(&bucket)?;
        Ok(self.overlay.get(&bucket.name, &key).await.map(|value| value.is_some()).map_err(Error::from))
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<Result<store::KeyResponse, Error>> {
        let bucket = self.table.get(&bucket)?;
        let page = self.overlay.list_numbered(&bucket.name, cursor).await;
        Ok(page.map(|(keys, cursor)| store::KeyResponse { keys, cursor }).map_err(Error::from))
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<Result<u64, Error>> {
        let bucket = self.table.get(&bucket)?;
        Ok(self.overlay.increment(bucket, key, delta).await.map_err(Error::from))
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Result<Vec<Option<(String, Vec<u8>)>>, Error>> {
        let bucket = self.table.get(&bucket)?;
        let found = self.overlay.get_many(&bucket.name, keys).await;
        let pair = |(key, value): (_, Option<_>)| value.map(|value| (key, Vec::from(value)));
        Ok(found.map(|found| found.into_iter().map(pair).collect()).map_err(Error::from))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> Result<Result<(), Error>> {
        let bucket = self.table.get(&bucket)?;
        let writes = key_values.into_iter().map(|(key, value)| (key, Some(value.into()))).collect();
        Ok(bucket.to_write().and_then(|name| self.overlay.write(name, writes)).map_err(Error::from))
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<Result<(), Error>> {
        let bucket = self.table.get(&bucket)?;
        let writes = keys.into_iter().map(|key| (key, None)).collect();
        Ok(bucket.to_write().and_then(|name| self.overlay.write(name, writes)).map_err(Error::from))
    }
}
