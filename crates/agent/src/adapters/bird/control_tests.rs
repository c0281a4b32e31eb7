use std::os::unix::net::UnixListener;
use std::thread;

use super::*;

/// A daemon that says these bytes and hangs up.
fn says(bytes: &'static [u8]) -> Result<Control, Mute> {
    let directory = std::env::temp_dir().join(format!("buoy-control-{}", uuid::Uuid::new_v4()));
    let listener = UnixListener::bind(&directory).unwrap();
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(bytes).unwrap();
    });
    let control = Control::connect(&directory);
    daemon.join().unwrap();
    std::fs::remove_file(directory).unwrap();
    control
}

#[test]
fn an_answer_has_lines_with_numbers() {
    let mut control = says(
        b"0001 BIRD 2.0.12 ready.\n1000-BIRD 2.0.12\n1011-Router ID is 10.0.0.1\n Hostname is n1\n+async\n0013 Daemon is up\n",
    )
    .unwrap();
    assert_eq!(control.greeting, "BIRD 2.0.12 ready.");
    let lines = control.answer().unwrap();
    let read: Vec<(u16, &str)> = lines.iter().map(|line| (line.code, line.text.as_str())).collect();
    assert_eq!(
        read,
        [
            (1000, "BIRD 2.0.12"),
            (1011, "Router ID is 10.0.0.1"),
            (1011, "Hostname is n1"),
            (13, "Daemon is up")
        ]
    );
    assert!(!is_refusal(&lines) && is_refusal(&[]));
}

#[test]
fn garbage_is_an_error() {
    for bytes in [
        &b"hello\n"[..],
        b"12\n",
        b"99999\n",
        b"\xff\xfe\xfd\xfc\xfb\n",
        b"+123 x\n",
        b"0001-begun and never ended",
        b"\n",
        b"",
    ] {
        assert!(matches!(says(bytes), Err(Mute::Silent(_))), "{bytes:?}");
    }
}

#[test]
fn nobody_is_told_from_somebody_silent() {
    assert_eq!(
        Control::connect(Path::new("/nonexistent/bird.ctl")).unwrap_err(),
        Mute::Absent
    );
}
