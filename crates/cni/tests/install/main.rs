//! `buoy-cni install` and `uninstall` as a program, on directories that stand for a node's. It needs root, for file systems
//! that are full or read-only.

#[cfg(test)]
mod node;
#[cfg(test)]
mod story;
#[cfg(test)]
mod trouble;
