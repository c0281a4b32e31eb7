//! The way from a writer to the store: writers die on it, and answers are lost.

use std::cell::{Cell, RefCell};

use buoy_core::store::{Next, Reply, Steps, StoreOp};
use buoy_datastore::Datastore;

/// A small generator of random numbers (xorshift).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// The writer died, or cannot go on because it does not know what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Down;

pub(crate) struct Line<'a> {
    pub(crate) store: &'a dyn Datastore,
    dice: RefCell<Dice>,
    is_bad: Cell<bool>,
}

impl<'a> Line<'a> {
    pub(crate) fn new(store: &'a dyn Datastore, dice: Dice) -> Self {
        Self {
            store,
            dice: RefCell::new(dice),
            is_bad: Cell::new(true),
        }
    }

    /// Nothing happens on it any more, or again.
    pub(crate) fn set_bad(&self, is_bad: bool) {
        self.is_bad.set(is_bad);
    }

    pub(crate) fn below(&self, sides: u64) -> u64 {
        self.dice.borrow_mut().below(sides)
    }

    /// One operation; it may or may not have happened when the writer is down or the answer is unknown.
    pub(crate) fn run(&self, op: &StoreOp) -> Result<Reply, Down> {
        let fate = if self.is_bad.get() {
            self.below(120)
        } else {
            u64::MAX
        };
        match fate {
            0 => Err(Down),
            1 => {
                self.store.run(op);
                Err(Down)
            }
            2 | 3 => {
                if fate == 2 {
                    self.store.run(op);
                }
                Ok(Reply::Unknown)
            }
            _ => Ok(self.store.run(op)),
        }
    }

    /// A protocol of this project, on this way.
    pub(crate) fn drive<S: Steps>(&self, mut machine: S) -> Result<S::Out, Down> {
        let mut reply = Reply::Start;
        loop {
            match machine.step(reply) {
                Next::Do(op) => reply = self.run(&op)?,
                Next::Done(out) => return Ok(out),
            }
        }
    }
}
