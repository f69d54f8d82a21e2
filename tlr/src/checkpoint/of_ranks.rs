//! One checkpoint of several ranks: that of the first rank, and what differs on the others.

use super::{failed, Checkpoint, Tensors, RANK};
use crate::{
    digest::Digest,
    error::{CheckpointError, Error},
    tensors::Stored,
};
use std::collections::BTreeMap;

impl Checkpoint {
    /// The checkpoint of one rank, from the one that all ranks have
    /// [joined](crate::parallel::Ranks::join). A rank that was not there has that of the first.
    ///
    /// Example: [`Ranks::join`](crate::parallel::Ranks::join).
    pub fn of_rank(&self, rank: usize) -> Self {
        let own = format!("{RANK}{rank}.");
        let of_first = self.tensors.iter().filter(|(name, _)| !name.starts_with(RANK));
        let mut tensors: Tensors =
            of_first.map(|(name, stored)| (name.clone(), stored.clone())).collect();
        for (name, stored) in &self.tensors {
            if let Some(name) = name.strip_prefix(&own) {
                tensors.insert(name.to_owned(), stored.clone());
            }
        }
        Self { tensors, path: self.path.clone() }
    }

    /// A digest of each tensor, as bytes for other ranks.
    pub(crate) fn digests(&self) -> Result<Vec<u8>, Error> {
        let digests: BTreeMap<_, _> =
            self.tensors.iter().map(|(name, stored)| (name, digest(stored))).collect();
        serde_json::to_vec(&digests).map_err(|error| not_of_ranks(&error))
    }

    /// The tensors that differ from those with these [digests](Self::digests), as bytes.
    pub(crate) fn unlike(&self, digests: &[u8]) -> Result<Vec<u8>, Error> {
        let digests: BTreeMap<String, u64> =
            serde_json::from_slice(digests).map_err(|error| not_of_ranks(&error))?;
        let unlike = self.tensors.iter();
        let unlike = unlike.filter(|(name, stored)| digests.get(*name) != Some(&digest(stored)));
        let tensors = unlike.map(|(name, stored)| (name.clone(), stored.clone())).collect();
        Self { tensors, path: None }.to_bytes()
    }

    /// Adds what another rank has found [unlike](Self::unlike).
    pub(crate) fn with_rank(mut self, rank: usize, unlike: &[u8]) -> Result<Self, Error> {
        for (name, stored) in Self::from_bytes(unlike)?.tensors {
            self.tensors.insert(format!("{RANK}{rank}.{name}"), stored);
        }
        Ok(self)
    }
}

fn digest(stored: &Stored) -> u64 {
    let mut digest = Digest::default();
    digest.add_debug(&stored.dtype);
    digest.add_debug(&stored.shape);
    digest.add(&stored.bytes);
    digest.value()
}

fn not_of_ranks(error: &serde_json::Error) -> Error {
    failed(None, CheckpointError::Damaged(error.to_string()))
}
