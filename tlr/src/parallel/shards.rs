//! What ranks tell each other of snapshots that are shared out over them.

use super::{link::Kind, Communicator, Ranks};
use crate::{error::Error, optim::Shards};

/// Numbers that a rank sends at a time.
const PIECE_NUMBERS: usize = 1 << 19;

impl<C: Communicator> Shards for Ranks<C> {
    fn place(&self) -> (usize, usize) {
        (self.rank(), self.size())
    }

    /// Sends the numbers in pieces. Each piece begins with the length of the whole, so that all
    /// ranks know how many pieces are to come. A short list takes one piece.
    fn exchange_numbers(&self, own: Result<Vec<f64>, Error>) -> Result<Vec<Vec<f64>>, Error> {
        let mut all: Vec<Vec<f64>> = vec![Vec::new(); self.size()];
        let mut sent = 0;
        loop {
            let said = self.gather_as(Kind::Numbers, &piece(own.as_deref(), sent))?;
            if said.iter().any(Vec::is_empty) {
                // This call always returns an error, because one rank has failed.
                self.confirm_own(own.as_ref().err())?;
            }
            let mut longest = 0;
            for (from, said) in all.iter_mut().zip(&said) {
                let (words, _) = said.as_chunks();
                let Some((len, numbers)) = words.split_first() else { continue };
                longest = longest.max(u64::from_le_bytes(*len));
                from.extend(numbers.iter().map(|number| f64::from_le_bytes(*number)));
            }
            sent += PIECE_NUMBERS;
            if sent as u64 >= longest {
                return Ok(all);
            }
        }
    }
}

/// The length of all numbers of a rank, and some of them, from `first` on. Empty if the rank has
/// failed.
fn piece(own: Result<&[f64], &Error>, first: usize) -> Vec<u8> {
    let Ok(own) = own else { return Vec::new() };
    let numbers = own.iter().skip(first).take(PIECE_NUMBERS);
    let len = (own.len() as u64).to_le_bytes();
    len.into_iter().chain(numbers.flat_map(|number| number.to_le_bytes())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::{
        error::{DeviceError, ParallelError},
        parallel::Threads,
    };

    fn on_two(own: [Result<Vec<f64>, Error>; 2]) -> Vec<Result<Vec<Vec<f64>>, Error>> {
        let ranks = Threads::new(2).into_iter().zip(own);
        let ranks = ranks
            .map(|(link, own)| std::thread::spawn(move || Ranks::new(link).exchange_numbers(own)))
            .collect::<Vec<_>>();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    }

    /// Fails if the last piece is lost, or if a rank that has said all is asked for more.
    #[test]
    fn long_answers_come_in_pieces() {
        let long: Vec<_> = (0..2 * PIECE_NUMBERS + 3).map(|index| index as f64).collect();
        for short in [vec![], vec![7.0], vec![1.0; PIECE_NUMBERS]] {
            for said in on_two([Ok(long.clone()), Ok(short.clone())]) {
                assert!(said.unwrap() == [long.clone(), short.clone()]);
            }
        }
    }

    /// Fails if one rank goes on where another one has failed.
    #[test]
    fn a_failure_is_told_to_all() {
        let failed = Error::Device(DeviceError::new("no memory"));
        for said in on_two([Ok(vec![1.0; 2 * PIECE_NUMBERS]), Err(failed.clone())]) {
            let Err(Error::Parallel { rank: 1, problem, .. }) = said else { panic!("{said:?}") };
            assert_eq!(problem, ParallelError::Failed { message: failed.to_string() });
        }
    }
}
