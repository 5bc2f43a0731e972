//! Memory for the pieces of one blob on its way out, used again and again: new memory for each was cleared twice, by the
//! kernel and before the read. Must not know whose bytes are in it.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;

/// Bytes of a piece.
pub(super) const PIECE: usize = 256 * 1024;

/// What is not on its way. How much is depends on who takes the pieces.
#[derive(Debug)]
pub(super) struct Memory {
    free: Receiver<Vec<u8>>,
    back: Sender<Vec<u8>>,
}

/// A piece; its memory goes back when the last bytes of it are dropped.
struct Piece {
    memory: Vec<u8>,
    filled: usize,
    back: Sender<Vec<u8>>,
}

impl Default for Memory {
    fn default() -> Self {
        let (back, free) = channel();
        Self { free, back }
    }
}

impl Memory {
    /// The next piece of `source`: shorter, or empty, only at its end.
    pub(super) fn read(&self, source: &mut impl Read) -> io::Result<Bytes> {
        let mut memory = self.free.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
        let mut filled = 0;
        while filled < PIECE {
            match source.read(&mut memory[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Bytes::from_owner(Piece { memory, filled, back: self.back.clone() }))
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.filled]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // Nobody wants it when all has been read.
        drop(self.back.send(std::mem::take(&mut self.memory)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_shows_nothing_of_what_was_in_it() {
        let memory = Memory::default();
        let mut source = io::repeat(1).take(PIECE as u64).chain(io::repeat(2).take(5));
        let first = memory.read(&mut source).unwrap();
        let at = first.as_ptr();
        assert!(first.len() == PIECE && first.iter().all(|byte| *byte == 1));
        let rest = first.slice(PIECE - 1..);
        drop(first);
        assert!(memory.free.try_recv().is_err(), "a part of it is in use");
        drop(rest);
        let second = memory.read(&mut source).unwrap();
        assert_eq!((second.as_ptr(), &second[..]), (at, &[2_u8; 5][..]));
        assert!(memory.read(&mut source).unwrap().is_empty());
    }
}
