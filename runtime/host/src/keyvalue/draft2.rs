//! The functions of `wasi:keyvalue@0.2.0-draft2`.

use bytes::Bytes;
use wasmtime::Result;
use wasmtime::component::Resource;

use super::bindings::draft2::{atomics, batch, store};
use super::{Answer, Bucket, Cas, Refusal};
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
        cursor: Option<String>,
    ) -> Result<Result<store::KeyResponse, Error>> {
        let bucket = self.table.get(&bucket)?;
        let page = self.overlay.list(&bucket.name, cursor).await;
        Ok(page.map(|(keys, cursor)| store::KeyResponse { keys, cursor }).map_err(Error::from))
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Result<Result<i64, Error>> {
        let bucket = self.table.get(&bucket)?;
        Ok(self.overlay.increment(bucket, key, delta).await.map_err(Error::from))
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> Result<Result<(), atomics::CasError>> {
        let cas = self.table.delete(cas)?;
        Ok(match self.swap_value(cas, value.into()).await {
            Ok(None) => Ok(()),
            Ok(Some(fresh)) => Err(atomics::CasError::CasFailed(self.table.push(fresh)?)),
            Err(refusal) => Err(atomics::CasError::StoreError(refusal.into())),
        })
    }
}

impl atomics::HostCas for State {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Result<Resource<Cas>, Error>> {
        let bucket = self.table.get(&bucket)?.clone();
        Ok(match self.overlay.get(&bucket.name, &key).await {
            Ok(expected) => {
                self.table.push(Cas { bucket, key, expected }).map_err(|error| Refusal::other(error).into())
            }
            Err(refusal) => Err(refusal.into()),
        })
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Result<Option<Vec<u8>>, Error>> {
        let cas = self.table.get_mut(&cas)?;
        Ok(match self.overlay.get(&cas.bucket.name, &cas.key).await {
            Ok(value) => {
                cas.expected.clone_from(&value);
                Ok(value.map(Vec::from))
            }
            Err(refusal) => Err(refusal.into()),
        })
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl State {
    /// Writes, if the key has the value that is expected; otherwise what to expect instead.
    async fn swap_value(&mut self, cas: Cas, value: Bytes) -> Answer<Option<Cas>> {
        let name = cas.bucket.to_write()?;
        let current = self.overlay.get(name, &cas.key).await?;
        if current != cas.expected {
            return Ok(Some(Cas { expected: current, ..cas }));
        }
        self.overlay.write(name, vec![(cas.key.clone(), Some(value))])?;
        Ok(None)
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Result<Vec<(String, Option<Vec<u8>>)>, Error>> {
        let bucket = self.table.get(&bucket)?;
        let found = self.overlay.get_many(&bucket.name, keys).await;
        let pair = |(key, value): (_, Option<_>)| (key, value.map(Vec::from));
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
