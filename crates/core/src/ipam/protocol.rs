//! Protocols written as straight-line code, run as [`Steps`] machines.
//!
//! A protocol is an `async` function that awaits nothing but [`Store::run`]. The compiler makes of it the state machine
//! that [`Steps`] asks for: each `.await` is the one outstanding operation, and dropping the machine there is the crash.
//! There is no runtime, no waker and no thread: [`Protocol::step`] puts the reply into a slot that it shares with the
//! function, polls it once, and takes the next operation out.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::store::{Next, Reply, StoreOp};

/// What passes between a machine and its function.
#[derive(Debug, Default)]
struct Slot {
    operation: Option<StoreOp>,
    reply: Option<Reply>,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Slot>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The datastore as a protocol's function sees it. `access` gives it types.
#[derive(Debug)]
pub(super) struct Store {
    shared: Shared,
    /// Conflicts and lost answers so far.
    pub(super) setbacks: u32,
}

impl Store {
    /// One operation and its reply.
    pub(super) async fn run(&mut self, operation: StoreOp) -> Reply {
        self.shared.lock().operation = Some(operation);
        poll_fn(|_| match self.shared.lock().reply.take() {
            Some(reply) => Poll::Ready(reply),
            None => Poll::Pending,
        })
        .await
    }
}

type Running<O> = Pin<Box<dyn Future<Output = O> + Send>>;

/// A function over the [`Store`] as a machine. Stepped after its end, it repeats what it ended with.
pub(super) struct Protocol<O> {
    shared: Shared,
    state: State<O>,
}

enum State<O> {
    Running(Running<O>),
    Done(O),
}

impl<O: Clone> Protocol<O> {
    pub(super) fn new<F>(function: impl FnOnce(Store) -> F) -> Self
    where
        F: Future<Output = O> + Send + 'static,
    {
        let shared = Shared::default();
        let store = Store {
            shared: shared.clone(),
            setbacks: 0,
        };
        Self {
            shared,
            state: State::Running(Box::pin(function(store))),
        }
    }

    pub(super) fn step(&mut self, reply: Reply) -> Next<O> {
        let function = match &mut self.state {
            State::Running(function) => function,
            State::Done(out) => return Next::Done(out.clone()),
        };
        if reply != Reply::Start {
            self.shared.lock().reply = Some(reply);
        }
        match function.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(out) => {
                self.state = State::Done(out.clone());
                Next::Done(out)
            }
            Poll::Pending => match self.shared.lock().operation.take() {
                Some(operation) => Next::Do(operation),
                None => unreachable!("a protocol waits for nothing but the store"),
            },
        }
    }
}

impl<O> fmt::Debug for Protocol<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Running(_) => "running",
            State::Done(_) => "done",
        })
    }
}

/// Declares a public machine around a protocol.
macro_rules! machine {
    ($(#[$doc:meta])* $name:ident: $out:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name($crate::ipam::protocol::Protocol<$out>);

        impl $crate::store::Steps for $name {
            type Out = $out;

            fn step(&mut self, reply: $crate::store::Reply) -> $crate::store::Next<Self::Out> {
                self.0.step(reply)
            }
        }
    };
}

pub(super) use machine;
