//! A short digest, for comparing what has to be the same.

use std::fmt::{self, Debug, Write};

/// FNV-1a (Fowler, Noll and Vo) of several parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Adds a part, and its length, so that no two parts are taken for one.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.extend(bytes);
        self.extend(&(bytes.len() as u64).to_le_bytes());
    }

    /// Adds a value by its `Debug` text, which is exact for floats.
    pub(crate) fn add_debug(&mut self, value: &impl Debug) {
        // To write to a digest never fails.
        let _ = write!(self, "{value:?};");
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }

    fn extend(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend(text.as_bytes());
        Ok(())
    }
}
