//! Memory that many small values share: fewer pieces are faster to get and to give back. A value that is held on to
//! holds on to its chunk.

use bytes::{Bytes, BytesMut};

/// Hands out values, many from one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Chunk(BytesMut);

impl Chunk {
    /// In bytes.
    const SIZE: usize = 16 * 1024;

    /// Room for a value of about `len` bytes, to be filled and then [taken](Self::take).
    pub(crate) fn room(&mut self, len: usize) -> &mut BytesMut {
        if self.0.capacity() < len {
            self.0 = BytesMut::with_capacity(Self::SIZE.max(len));
        }
        &mut self.0
    }

    /// What was filled since the last time. It can still be changed.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.0.split()
    }

    /// A copy.
    pub(crate) fn copy(&mut self, value: &[u8]) -> Bytes {
        self.room(value.len()).extend_from_slice(value);
        self.take().freeze()
    }
}
