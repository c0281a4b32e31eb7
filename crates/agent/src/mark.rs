//! What this agent knew last of its datastore: the next one finds by it that the store was restored in between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use buoy_datastore::{Datastore, Mark};
use tracing::warn;

use crate::files;

/// The file's name.
const FILE: &str = "datastore";

/// The mark of one datastore.
#[derive(Debug)]
pub(crate) struct Marks {
    store: Arc<dyn Datastore>,
    path: PathBuf,
    saved: Option<Mark>,
}

impl Marks {
    /// Recalls what an earlier agent noted. To be done before the store is asked anything.
    pub(crate) fn recall(store: Arc<dyn Datastore>, state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let saved = match read(&path) {
            Ok(mark) => Some(mark),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(
                    "what an earlier agent knew of the datastore cannot be read: {}: {error}",
                    path.display()
                );
                None
            }
        };
        if let Some(mark) = &saved {
            store.recall(mark);
        }
        Self { store, path, saved }
    }

    /// Notes how the store is now.
    pub(crate) fn note(&mut self) {
        let Some(mark) = self.store.mark() else { return };
        if self.saved.as_ref() == Some(&mark) {
            return;
        }
        match write(&self.path, &mark) {
            Ok(()) => self.saved = Some(mark),
            Err(error) => warn!("write: {}: {error}", self.path.display()),
        }
    }
}

fn read(path: &Path) -> io::Result<Mark> {
    Ok(serde_json::from_slice(&files::read(path)?)?)
}

/// Not kept through a loss of power: with it go the workloads, too.
fn write(path: &Path, mark: &Mark) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(mark)?)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use buoy_core::store::{Key, Reply, Revision, StoreOp};
    use buoy_core::view;
    use buoy_datastore::sqlite::{Options, Sqlite};

    use super::*;

    fn store(dir: &Path) -> Arc<dyn Datastore> {
        Arc::new(Sqlite::open(&dir.join("buoy.db"), Options::default()).unwrap())
    }

    fn write_once(store: &dyn Datastore) {
        let made = store.run(&StoreOp::Get(Key::IpamConfig));
        assert_eq!(made, Reply::Record(None));
        let floor = buoy_core::floating::collect::raised(None, buoy_api::binding::Epoch(3));
        let buoy_core::edit::Change::Put(value) = floor else {
            panic!()
        };
        assert!(matches!(
            store.run(&StoreOp::Create(Key::EpochFloor, *value)),
            Reply::Written(_)
        ));
    }

    fn list(store: &dyn Datastore) {
        for prefix in view::interest("n1") {
            buoy_datastore::list(store, prefix).unwrap();
        }
    }

    #[test]
    fn the_next_agent_notices_that_the_store_went_back() {
        let (state, file) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = store(file.path());
        let mut marks = Marks::recall(Arc::clone(&first), state.path());
        marks.note();
        assert!(!state.path().join(FILE).exists(), "nothing is known yet");
        write_once(&*first);
        list(&*first);
        marks.note();
        drop((marks, first));

        let same = store(file.path());
        Marks::recall(Arc::clone(&same), state.path());
        list(&*same);
        assert_eq!(same.replaced(), 0);
        drop(same);

        // A copy in its place, which others have used since.
        let copy = file.path().join("copy.db");
        fs::copy(file.path().join("buoy.db"), &copy).unwrap();
        fs::rename(&copy, file.path().join("buoy.db")).unwrap();
        let copy = store(file.path());
        Marks::recall(Arc::clone(&copy), state.path());
        list(&*copy);
        assert_eq!(copy.replaced(), 1);

        let file = tempfile::tempdir().unwrap();
        let another = store(file.path());
        Marks::recall(Arc::clone(&another), state.path());
        list(&*another);
        assert_eq!(another.replaced(), 1);
        assert_eq!(another.mark(), None, "not before it is accepted");
        let refused = another.run(&StoreOp::Delete(Key::EpochFloor, Revision(1)));
        let Reply::Failed(error) = refused else {
            panic!("{refused:?}")
        };
        assert!(error.message.contains("restored from a copy"), "{error}");
    }

    #[test]
    fn half_a_mark_is_none() {
        let (state, file) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(state.path().join(FILE), "{\"cluster\": ").unwrap();
        let store = store(file.path());
        write_once(&*store);
        Marks::recall(Arc::clone(&store), state.path()).note();
        assert_eq!(read(&state.path().join(FILE)).unwrap().revision, 1);
    }
}
