//! A lock that is waited for until a deadline.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Something that one thread at a time may have; the others wait, but not for ever.
#[derive(Debug)]
pub(super) struct Seat<T> {
    taken: Mutex<bool>,
    free: Condvar,
    content: Mutex<T>,
}

/// The content of a [`Seat`], until this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a, T> {
    seat: &'a Seat<T>,
    content: MutexGuard<'a, T>,
}

impl<T> Seat<T> {
    pub(super) fn new(content: T) -> Self {
        Self {
            taken: Mutex::new(false),
            free: Condvar::new(),
            content: Mutex::new(content),
        }
    }

    /// Waits for the content; `None` if the deadline passes first.
    pub(super) fn take(&self, deadline: Instant) -> Option<Taken<'_, T>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            let left = deadline.checked_duration_since(Instant::now())?;
            taken = self
                .free
                .wait_timeout(taken, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *taken = true;
        drop(taken);
        Some(Taken {
            seat: self,
            content: self.content.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.content
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        *self.seat.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.seat.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_comes_second_waits_or_gives_up() {
        let seat = Seat::new(1);
        let first = seat.take(Instant::now()).unwrap();
        let begun = Instant::now();
        assert!(seat.take(begun + Duration::from_millis(20)).is_none());
        assert!(begun.elapsed() >= Duration::from_millis(20));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| *seat.take(Instant::now() + Duration::from_secs(10)).unwrap());
            drop(first);
            assert_eq!(second.join().unwrap(), 1);
        });
    }

    #[test]
    fn a_panic_leaves_it_free() {
        let seat = Seat::new(1);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _taken = seat.take(Instant::now()).unwrap();
            panic!("on purpose");
        }));
        assert!(result.is_err());
        assert!(seat.take(Instant::now()).is_some());
    }
}
