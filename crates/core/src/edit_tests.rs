use super::*;
use crate::fixtures::{node, pod, record};
use crate::store::{Bad, FailureKind};

fn key() -> Key {
    Key::Node("n1".to_owned())
}

fn found(address: &str, revision: u64) -> Reply {
    let value = Ok(Value::Node(node("n1", address)));
    Reply::Record(Some(Record {
        key: key(),
        revision: Revision(revision),
        value,
    }))
}

fn wanted() -> Value {
    Value::Node(node("n1", "10.0.0.9/24"))
}

/// Puts what is wanted, unless it is there.
fn put(found: Option<&Value>) -> Change {
    if found == Some(&wanted()) {
        Change::Keep
    } else {
        Change::Put(Box::new(wanted()))
    }
}

fn update(revision: u64) -> Next<Result<(), EditError>> {
    Next::Do(StoreOp::Update(key(), wanted(), Revision(revision)))
}

#[test]
fn it_reads_then_writes() {
    for (reply, expected) in [
        (Reply::Record(None), Next::Do(StoreOp::Create(key(), wanted()))),
        (found("10.0.0.1/24", 3), update(3)),
        (found("10.0.0.9/24", 3), Next::Done(Ok(()))),
    ] {
        let mut edit = Edit::new(key(), put);
        assert_eq!(edit.step(Reply::Start), Next::Do(StoreOp::Get(key())));
        assert_eq!(edit.step(reply), expected);
    }
}

#[test]
fn it_deletes_at_the_revision_that_it_read() {
    let mut edit = Edit::new(key(), |_| Change::Delete);
    edit.step(Reply::Start);
    assert_eq!(
        edit.step(found("10.0.0.1/24", 3)),
        Next::Do(StoreOp::Delete(key(), Revision(3)))
    );
    assert_eq!(edit.step(Reply::Deleted), Next::Done(Ok(())));
    let mut edit = Edit::new(key(), |_| Change::Delete);
    edit.step(Reply::Start);
    assert_eq!(edit.step(Reply::Record(None)), Next::Done(Ok(())));
}

#[test]
fn what_the_caller_knows_saves_the_reading() {
    let known = Some((Value::Node(node("n1", "10.0.0.1/24")), Revision(3)));
    let mut edit = Edit::knowing(key(), known, put);
    assert_eq!(edit.step(Reply::Start), update(3));
    assert_eq!(edit.step(Reply::Written(Revision(4))), Next::Done(Ok(())));
    let mut edit = Edit::knowing(key(), None, put);
    assert_eq!(
        edit.step(Reply::Start),
        Next::Do(StoreOp::Create(key(), wanted()))
    );
}

#[test]
fn after_a_conflict_it_decides_again_on_what_is_there_now() {
    let mut edit = Edit::knowing(key(), None, put);
    edit.step(Reply::Start);
    assert_eq!(edit.step(Reply::Conflict), Next::Do(StoreOp::Get(key())));
    assert_eq!(edit.step(found("10.0.0.1/24", 8)), update(8));
}

#[test]
fn a_lost_answer_is_looked_up_so_that_nothing_is_written_twice() {
    let mut edit = Edit::new(key(), put);
    edit.step(Reply::Start);
    edit.step(found("10.0.0.1/24", 3));
    assert_eq!(edit.step(Reply::Unknown), Next::Do(StoreOp::Get(key())));
    assert_eq!(
        edit.step(found("10.0.0.9/24", 4)),
        Next::Done(Ok(())),
        "it had happened"
    );
}

#[test]
fn a_record_that_does_not_decode_is_never_written_over() {
    let mut edit = Edit::new(key(), put);
    edit.step(Reply::Start);
    let bad = Err(Bad {
        reason: "no spec".to_owned(),
    });
    let garbage = Record {
        key: key(),
        revision: Revision(3),
        value: bad,
    };
    let Next::Done(Err(error)) = edit.step(Reply::Record(Some(garbage))) else {
        panic!()
    };
    assert_eq!(error.to_string(), "Node n1: no spec\nmend or delete the record");
}

#[test]
fn it_gives_up_when_others_keep_changing_the_record() {
    let mut edit = Edit::new(key(), put);
    edit.step(Reply::Start);
    for conflict in 1.. {
        edit.step(found("10.0.0.1/24", 3));
        match edit.step(Reply::Conflict) {
            Next::Do(operation) => assert_eq!(operation, StoreOp::Get(key())),
            Next::Done(result) => {
                assert_eq!(result, Err(EditError::Contended(key())));
                assert_eq!(conflict, TRIES);
                break;
            }
        }
    }
}

#[test]
fn a_failure_of_the_datastore_is_told_as_it_is() {
    let error = StoreError {
        kind: FailureKind::Refused,
        message: "disk full: /var/lib/buoy/buoy.db".to_owned(),
    };
    let mut edit = Edit::new(key(), put);
    edit.step(Reply::Start);
    assert_eq!(
        edit.step(Reply::Failed(error.clone())),
        Next::Done(Err(EditError::Store(error)))
    );
}

#[test]
fn a_value_of_another_kind_is_handed_on() {
    let attachment = pod("web-0", 7);
    let value = Value::Endpoint(record(&attachment, &[]));
    let mut seen = None;
    let mut edit = Edit::knowing(key(), Some((value.clone(), Revision(1))), |found| {
        seen = found.cloned();
        Change::Keep
    });
    assert_eq!(edit.step(Reply::Start), Next::Done(Ok(())));
    assert_eq!(seen, Some(value));
}
