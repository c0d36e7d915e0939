//! The watchdog on real sockets, in threads: one process cannot lose its only thread and tell of it, so the inline server and the
//! forking one are tested from outside (`tests/test_watchdog.py`).

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use mlws_http1::ResponseHead;
use mlws_server::{
    Aborted, Body, Bytes, Command, Concurrency, Listener, Outcome, Request, Response, Server, ServerEvent,
    Settings, Stream,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server whose app waits where it is told to.
struct Running {
    address: String,
    commands_of_source: mpsc::Sender<Command>,
    bell: UnixStream,
    notices: mpsc::Receiver<ServerEvent>,
    open: mpsc::Sender<()>,
    thread: thread::JoinHandle<std::io::Result<Outcome>>,
}

impl Running {
    fn start(threads: usize, timeout: Duration) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let address = listener.local_address().unwrap().to_string();
        let (commands_of_source, inbox) = mpsc::channel();
        let (bell, ear) = UnixStream::pair().unwrap();
        let (tell, notices) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let (gate, all) = (Mutex::new(gate), Barrier::new(threads));
        // Sometimes a little shorter than it takes the watchdog to look, sometimes a little longer.
        let naps = AtomicU32::new(0);
        let nap = move || {
            let step = naps.fetch_add(1, Ordering::Relaxed) % 8;
            thread::sleep(timeout + Duration::from_micros(250) * step);
        };
        let app = move |request: &mut Request| {
            match request.target() {
                // Not in the thread that called `run`: a server whose own thread is stuck ends the whole process.
                "/wait" if thread::current().name().is_none_or(|name| !name.starts_with("mlws-")) => {
                    return Response::text("not here\n");
                }
                "/wait" => drop(gate.lock().unwrap().recv()),
                "/all" => drop(all.wait()),
                "/nap" => nap(),
                "/stream" => {
                    nap();
                    let head = ResponseHead::new(200, b"OK").unwrap();
                    return Response::new(head, Body::Stream { stream: Box::new(Once(true)), length: None });
                }
                _ => (),
            }
            Response::text("done\n")
        };
        let settings = Settings {
            concurrency: Concurrency::Threads(threads),
            timeout: Some(timeout),
            ..Settings::default()
        };
        let server = Server::new(vec![listener], settings, Arc::new(app))
            .command_source(OwnedFd::from(ear), Box::new(move || inbox.try_recv().ok()))
            .on_event(Box::new(move |notice| match notice {
                ServerEvent::Serving => {}
                notice => tell.send(notice).unwrap(),
            }));
        Self { address, commands_of_source, bell, notices, open, thread: thread::spawn(|| server.run()) }
    }

    fn ask(&self, path: &str, connection: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn order(&self, order: Command) {
        self.commands_of_source.send(order).unwrap();
        (&self.bell).write_all(b"!").unwrap();
    }
}

fn rest(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A stream of one piece.
struct Once(bool);

impl Stream for Once {
    fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        Ok(std::mem::take(&mut self.0).then(|| Bytes::Owned(b"done\n".to_vec())))
    }
}

/// Asks for `/wait` until it is not answered at once.
fn wait(server: &Running) -> String {
    let mut answers = std::iter::repeat_with(|| rest(server.ask("/wait", "close")));
    answers.find(|answer| !answer.ends_with("not here\n")).unwrap()
}

#[test]
fn a_call_that_is_back_too_late_finds_its_client_answered_and_is_no_longer_stuck() {
    let server = Running::start(2, Duration::from_millis(500));
    let answer = wait(&server);
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n504 Gateway Timeout: the request took too long\n"), "{answer}");
    assert_eq!(server.notices.recv_timeout(PATIENCE), Ok(ServerEvent::CallTimedOut));
    assert!(rest(server.ask("/", "close")).ends_with("done\n"));
    server.open.send(()).unwrap();
    // These are only answered if both threads are there.
    for stream in [server.ask("/all", "close"), server.ask("/all", "close")] {
        assert!(rest(stream).ends_with("done\n"));
    }
    server.order(Command::Drain);
    assert_eq!(server.thread.join().unwrap().unwrap(), Outcome::Finished);
    assert!(server.notices.try_recv().is_err(), "it is told once");
}

#[test]
fn a_drain_waits_for_no_stuck_call() {
    let server = Running::start(2, Duration::from_millis(200));
    assert!(wait(&server).starts_with("HTTP/1.1 504 "));
    server.order(Command::Drain);
    assert_eq!(server.thread.join().unwrap().unwrap(), Outcome::Stuck);
    drop(server.open);
}

/// Calls that end just when they become overdue: the app and the watchdog race for each response.
#[test]
fn there_is_never_more_than_one_response_and_never_half_of_one() {
    let server = Running::start(8, Duration::from_millis(50));
    let mut statuses = [0, 0];
    for _ in 0..10 {
        let streams: Vec<_> = (0..8).map(|_| server.ask("/nap", "close")).collect();
        for stream in streams {
            let answer = rest(stream);
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
            let late = answer.starts_with("HTTP/1.1 504 ");
            assert!(answer.ends_with(if late { "too long\n" } else { "\r\n\r\ndone\n" }), "{answer}");
            statuses[usize::from(late)] += 1;
        }
    }
    // A stream is sent while its call lasts, so that the watchdog may cut it; what it may not do is to answer behind its head.
    for _ in 0..10 {
        let streams: Vec<_> = (0..8).map(|_| server.ask("/stream", "close")).collect();
        for mut stream in streams {
            let mut answer = Vec::new();
            let whole = stream.read_to_end(&mut answer).is_ok();
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
            let ends_well = answer.ends_with("too long\n") || answer.ends_with("\r\n0\r\n\r\n");
            assert!(ends_well || !whole, "{answer}");
        }
    }
    println!("{} in time, {} too late", statuses[0], statuses[1]);
    // It is left running: told to end while its own thread is late, it would end this whole process.
}
