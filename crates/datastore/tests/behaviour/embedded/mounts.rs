//! File systems that are full or read-only, in mount namespaces that the tests make for themselves: root ignores file
//! modes, but not these.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use buoy_core::store::{FailureKind, Prefix, Reply, StoreError, StoreOp};
use buoy_datastore::Datastore;
use buoy_datastore::sqlite::{Options, Sqlite};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::processes::integrity;
use crate::tools::{create, get, key, list, number, update, value};

/// Runs a test on a file system of its own, on a thread that nobody else shares mounts with.
fn on_a_small_disk(size: &str, test: fn(&Path)) {
    let size = format!("size={size}");
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            assert!(
                std::env::var_os("CI").is_none(),
                "cannot make a mount namespace: {error}"
            );
            eprintln!("SKIPPED: this test needs root: cannot make a mount namespace: {error}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size.as_str()),
        )
        .unwrap();
        test(dir.path());
        nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    };
    std::thread::spawn(run).join().unwrap();
}

fn remount(path: &Path, flags: MsFlags, options: Option<&str>) {
    mount(
        None::<&str>,
        path,
        None::<&str>,
        MsFlags::MS_REMOUNT | flags,
        options,
    )
    .unwrap();
}

fn assert_refused(error: &StoreError, path: &Path) {
    assert_eq!(error.kind, FailureKind::Refused, "{error}");
    assert!(error.message.contains(&path.display().to_string()), "{error}");
    assert!(error.message.contains('\n'), "says what to do: {error}");
}

#[test]
fn a_full_disk_loses_nothing() {
    on_a_small_disk("2m", |dir| {
        let path = dir.join("buoy.db");
        let store = Sqlite::open(&path, Options::default()).unwrap();
        let mut at = create(&store, "before", 1);
        fill(dir);
        let mut count = 0;
        let error = loop {
            let name = format!("p{count}");
            match store.run(&StoreOp::Create(key(&name), value(&name, count))) {
                Reply::Written(revision) => at = revision,
                Reply::Failed(error) => break error,
                other => panic!("{other:?}"),
            }
            count += 1;
            assert!(count < 100_000, "the disk is never full");
        };
        println!("after {count} writes: {error}");
        assert_refused(&error, &path);
        let (records, revision) = list(&store, Prefix::Reservations);
        assert_eq!((records.len() as u64, revision), (count + 1, at), "reads go on");
        assert_eq!(number(&get(&store, &key("before")).unwrap()), 1);

        // A process that begins now either works or says what is wrong.
        match Sqlite::open(&path, Options::default()) {
            Ok(second) => assert_eq!(list(&second, Prefix::Reservations).1, at),
            Err(error) => assert_refused(&error, &path),
        }
        remount(dir, MsFlags::empty(), Some("size=8m"));
        let next = create(&store, "after", 2);
        assert_eq!(next.0, at.0 + 1, "what failed used no revision");
        drop(store);
        assert_eq!(integrity(&path), "ok");
        let again = Sqlite::open(&path, Options::default()).unwrap();
        assert_eq!(list(&again, Prefix::Reservations).0.len() as u64, count + 2);
    });
}

/// Leaves no more than some hundred kilobytes.
fn fill(dir: &Path) {
    let mut file = File::create(dir.join("filler")).unwrap();
    let chunk = [7; 4096];
    while file.write_all(&chunk).is_ok() {}
    let size = file.metadata().unwrap().len();
    file.set_len(size - 40 * 4096).unwrap();
}

#[test]
fn a_disk_that_is_full_from_the_begin_is_named() {
    on_a_small_disk("64k", |dir| {
        fs::write(dir.join("filler"), vec![7; 60 * 1024]).unwrap();
        let path = dir.join("buoy.db");
        let error = match Sqlite::open(&path, Options::default()) {
            Err(error) => error,
            Ok(store) => match store.run(&StoreOp::Create(key("a"), value("a", 1))) {
                Reply::Failed(error) => error,
                other => panic!("{other:?}"),
            },
        };
        assert_refused(&error, &path);
        fs::remove_file(dir.join("filler")).unwrap();
        remount(dir, MsFlags::empty(), Some("size=8m"));
        create(&Sqlite::open(&path, Options::default()).unwrap(), "a", 1);
    });
}

#[test]
fn a_read_only_disk_loses_nothing() {
    on_a_small_disk("8m", |dir| {
        let path = dir.join("buoy.db");
        let store = Sqlite::open(&path, Options::default()).unwrap();
        let at = create(&store, "a", 1);
        drop(store);
        remount(dir, MsFlags::MS_RDONLY, None);
        match Sqlite::open(&path, Options::default()) {
            Err(error) => assert_refused(&error, &path),
            Ok(store) => match store.run(&StoreOp::Update(key("a"), value("a", 2), at)) {
                Reply::Failed(error) => assert_refused(&error, &path),
                other => panic!("{other:?}"),
            },
        }
        let missing = dir.join("new.db");
        assert_refused(&Sqlite::open(&missing, Options::default()).unwrap_err(), &missing);
        remount(dir, MsFlags::empty(), None);
        let store = Sqlite::open(&path, Options::default()).unwrap();
        assert_eq!(number(&get(&store, &key("a")).unwrap()), 1);
        update(&store, "a", 2, at);
    });
}
