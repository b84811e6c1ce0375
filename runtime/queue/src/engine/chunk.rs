//! Memory that many small values share: fewer pieces are faster to get and to give back. A value that is held on to
//! holds on to its chunk.

use bytes::{Bytes, BytesMut};

/// Hands out values, many from one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    bytes: BytesMut,
    /// How large the last piece was.
    size: usize,
}

impl Chunk {
    /// Pieces grow from one size to the other, in bytes: one value alone is not to hold on to much.
    const FIRST: usize = 512;
    const LAST: usize = 16 * 1024;

    /// Room for a value of about `len` bytes, to be filled and then [taken](Self::take).
    pub(crate) fn room(&mut self, len: usize) -> &mut BytesMut {
        if self.bytes.capacity() < len {
            self.size = (self.size * 2).clamp(Self::FIRST, Self::LAST);
            self.bytes = BytesMut::with_capacity(self.size.max(len));
        }
        &mut self.bytes
    }

    /// What was filled since the last time. It can still be changed.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.bytes.split()
    }

    /// A copy.
    pub(crate) fn copy(&mut self, value: &[u8]) -> Bytes {
        self.room(value.len()).extend_from_slice(value);
        self.take().freeze()
    }
}
