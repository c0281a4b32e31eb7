//! What is special to the store in a file.

mod locks;
mod mounts;
mod processes;
mod refusals;
mod writer;
