//! The private async runtime behind the blocking face of a client.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that keep connections going. They end when this is dropped; nobody waits for them.
#[derive(Debug)]
pub(crate) struct Threads {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Threads {
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            // Names are looked up on these.
            .max_blocking_threads(2)
            .thread_name(name)
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Waits for a future on the caller's thread.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.handle.spawn(task)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
