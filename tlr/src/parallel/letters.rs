//! [`Letter`]: a message by which ranks agree on an NCCL transfer. Another communicator carries it.

/// A message, or a word about one that the GPUs carry.
#[derive(Debug, PartialEq)]
pub(super) enum Letter {
    /// The message itself.
    Short(Vec<u8>),
    /// A message of this many bytes can be asked for, piece by piece.
    Long(usize),
    /// The sender of this letter waits for the next piece of the first long message.
    Asks,
    /// The piece that was sent last has arrived.
    Has,
    /// No long message travels any more. A short message after this letter may say why.
    Lost,
}

const SHORT: u8 = 1;
const LONG: u8 = 2;
const ASKS: u8 = 3;
const HAS: u8 = 4;
const LOST: u8 = 5;

impl Letter {
    /// The bytes to send. The kind stands in the last byte, so that a short message need not be
    /// moved.
    pub(super) fn seal(self) -> Vec<u8> {
        let (mut letter, kind) = match self {
            Self::Short(message) => (message, SHORT),
            Self::Long(len) => ((len as u64).to_le_bytes().to_vec(), LONG),
            Self::Asks => (Vec::new(), ASKS),
            Self::Has => (Vec::new(), HAS),
            Self::Lost => (Vec::new(), LOST),
        };
        letter.push(kind);
        letter
    }

    /// None if the bytes are no letter.
    pub(super) fn open(mut letter: Vec<u8>) -> Option<Self> {
        match letter.pop()? {
            SHORT => Some(Self::Short(letter)),
            LONG => {
                let len = u64::from_le_bytes(letter.try_into().ok()?);
                usize::try_from(len).ok().map(Self::Long)
            }
            ASKS if letter.is_empty() => Some(Self::Asks),
            HAS if letter.is_empty() => Some(Self::Has),
            LOST if letter.is_empty() => Some(Self::Lost),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_they_were_written() {
        let letters = || {
            let short = [Vec::new(), vec![0], vec![LONG; 9]].map(Letter::Short);
            let long = [0, 1, usize::MAX].map(Letter::Long);
            short.into_iter().chain(long).chain([Letter::Asks, Letter::Has, Letter::Lost])
        };
        assert!(letters().zip(letters()).all(|(one, same)| Letter::open(one.seal()) == Some(same)));
    }

    #[test]
    fn what_is_no_letter_is_not_read() {
        for other in
            [&[][..], &[0], &[7, 7], &[1, ASKS], &[1, HAS], &[1, LOST], &[0; 8], &[1, LONG]]
        {
            assert_eq!(Letter::open(other.to_vec()), None, "{other:?}");
        }
    }
}
