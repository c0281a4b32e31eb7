use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, bounded};

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// A server with a loop behind it that answers this.
struct Served {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

fn served(glance: Glance) -> Served {
    let (inputs, queue) = bounded(4);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for input in &queue {
            if let Input::Glance(reply) = input {
                count.fetch_add(1, Ordering::Relaxed);
                reply.send(glance.clone()).ok();
            }
        }
    });
    Served {
        address: start(inputs),
        asked,
    }
}

/// A server with a short patience; where it listens.
fn start(inputs: Sender<Input>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = Answers::new(Metrics::new(), inputs, Duration::from_millis(300));
    buoy_daemon::http::serve_tcp(listener, answers).unwrap();
    address
}

/// A loop that takes nothing in.
fn stuck() -> (SocketAddr, Receiver<Input>) {
    let (inputs, queue) = bounded(4);
    (start(inputs), queue)
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: n1\r\n\r\n").as_bytes(),
    )
}

/// Status and body of the answer; 0 if there is none.
fn ask(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or_default(), body.to_owned())
}

#[test]
fn pages_say_how_things_are() {
    let ready = served(Glance::default());
    assert_eq!(get(ready.address, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(get(ready.address, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(ready.address, "/readyz?verbose").0, 200);
    assert_eq!(get(ready.address, "/nothing").0, 404);
    assert_eq!(
        ask(ready.address, b"DELETE /metrics HTTP/1.1\r\nHost: n1\r\n\r\n").0,
        405
    );
    let (status, text) = get(ready.address, "/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("\nbuoy_ready 1\n"), "{text}");

    let reasons = ["no contact with the datastore: x", "routing: y"];
    let unready = served(Glance {
        unready: reasons.map(str::to_owned).to_vec(),
        ..Glance::default()
    });
    let why = format!("{}\n", reasons.join("\n"));
    assert_eq!(get(unready.address, "/readyz"), (503, why));
    assert_eq!(
        get(unready.address, "/healthz").0,
        200,
        "the loop turns all the same"
    );
}

#[test]
fn a_loop_that_stands_still_is_not_healthy() {
    let (address, queue) = stuck();
    for page in ["/healthz", "/readyz"] {
        let (status, why) = get(address, page);
        assert_eq!(
            (status, why.as_str()),
            (503, "the agent's loop has not turned for 0.3 s\n")
        );
    }
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("\nbuoy_loop_answers 0\n"), "{text}");
    // Also when nothing more fits into its queue.
    while queue.len() < 4 {
        assert_eq!(get(address, "/healthz").0, 503);
    }
    assert_eq!(get(address, "/healthz").0, 503);
}

#[test]
fn many_who_ask_at_once_cost_one_glance() {
    let served = served(Glance::default());
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                for _ in 0..4 {
                    assert_eq!(get(served.address, "/metrics").0, 200);
                }
            });
        }
    });
    let moments = usize::try_from(begun.elapsed().as_millis() / FRESH.as_millis()).unwrap();
    let asked = served.asked.load(Ordering::Relaxed);
    assert!(asked <= moments + 2, "{asked} glances in {moments} moments");
}

#[test]
fn garbage_and_slow_clients_keep_nobody_from_an_answer() {
    let served = served(Glance::default());
    let address = served.address;
    let mut held = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(address).unwrap();
        let part: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /metrics HTTP/1.1\r\nX: ",
            _ => &[0xff; 64],
        };
        stream.write_all(part).ok();
        held.push(stream);
        if number % 50 == 49 {
            assert_eq!(get(address, "/healthz").0, 200, "beside {number} others");
        }
    }
    let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 64 << 10]].concat();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&long).ok();
    assert_eq!(get(address, "/healthz").0, 200);
    drop(held);
}

#[test]
fn one_who_says_nothing_is_let_go() {
    let served = served(Glance::default());
    let mut stream = TcpStream::connect(served.address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
}

#[test]
fn the_socket_is_for_this_user_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let (inputs, queue) = bounded(4);
    serve(&Listen::Unix(path.clone()), Metrics::new(), inputs.clone()).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let taken = serve(&Listen::Unix(path), Metrics::new(), inputs).unwrap_err();
    assert!(
        taken.to_string().starts_with("another process answers"),
        "{taken}"
    );
    drop(queue);
}
