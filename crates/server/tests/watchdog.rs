//! The watchdog on real sockets, with threads. A server with one thread exits its process on a timeout, so `tests/test_watchdog.py`
//! tests that, and the one that forks.

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

const MAX_WAIT: Duration = Duration::from_secs(20);

/// A server whose app blocks on some targets.
struct Running {
    address: String,
    commands: mpsc::Sender<Command>,
    waker: UnixStream,
    events: mpsc::Receiver<ServerEvent>,
    open: mpsc::Sender<()>,
    thread: thread::JoinHandle<std::io::Result<Outcome>>,
}

impl Running {
    fn start(threads: usize, timeout: Duration) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let address = listener.local_address().unwrap().to_string();
        let (commands, receiver) = mpsc::channel();
        let (waker, woken) = UnixStream::pair().unwrap();
        let (report, events) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        let (gate, all) = (Mutex::new(gate), Barrier::new(threads));
        // Some calls end just before the watchdog checks, some just after.
        let naps = AtomicU32::new(0);
        let nap = move || {
            let step = naps.fetch_add(1, Ordering::Relaxed) % 8;
            thread::sleep(timeout + Duration::from_micros(250) * step);
        };
        let app = move |request: &mut Request| {
            match request.target() {
                // Not in the thread that called `run`: if that one is stuck, the whole process exits.
                "/wait" if thread::current().name().is_none_or(|name| !name.starts_with("mlws-")) => {
                    return Response::text("first thread\n");
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
            .command_source(OwnedFd::from(woken), Box::new(move || receiver.try_recv().ok()))
            .on_event(Box::new(move |event| match event {
                ServerEvent::Serving => {}
                event => report.send(event).unwrap(),
            }));
        Self { address, commands, waker, events, open, thread: thread::spawn(|| server.run()) }
    }

    fn request(&self, path: &str, connection: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn send(&self, command: Command) {
        self.commands.send(command).unwrap();
        (&self.waker).write_all(b"!").unwrap();
    }
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// A stream of one chunk.
struct Once(bool);

impl Stream for Once {
    fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        Ok(std::mem::take(&mut self.0).then(|| Bytes::Owned(b"done\n".to_vec())))
    }
}

/// Requests `/wait` until a thread other than the first runs it.
fn request_wait(server: &Running) -> String {
    let mut responses = std::iter::repeat_with(|| read_to_end(server.request("/wait", "close")));
    responses.find(|response| !response.ends_with("first thread\n")).unwrap()
}

#[test]
fn the_thread_of_an_overdue_call_can_be_used_again_when_the_call_returns() {
    let server = Running::start(2, Duration::from_millis(500));
    let response = request_wait(&server);
    assert!(response.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{response}");
    assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\n504 Gateway Timeout: the request took too long\n"), "{response}");
    assert_eq!(server.events.recv_timeout(MAX_WAIT), Ok(ServerEvent::CallTimedOut));
    assert!(read_to_end(server.request("/", "close")).ends_with("done\n"));
    server.open.send(()).unwrap();
    // These are only answered if both threads are available.
    for stream in [server.request("/all", "close"), server.request("/all", "close")] {
        assert!(read_to_end(stream).ends_with("done\n"));
    }
    server.send(Command::Drain);
    assert_eq!(server.thread.join().unwrap().unwrap(), Outcome::Finished);
    assert!(server.events.try_recv().is_err(), "the event is reported once");
}

#[test]
fn a_drain_does_not_await_stuck_calls() {
    let server = Running::start(2, Duration::from_millis(200));
    assert!(request_wait(&server).starts_with("HTTP/1.1 504 "));
    server.send(Command::Drain);
    assert_eq!(server.thread.join().unwrap().unwrap(), Outcome::Stuck);
    drop(server.open);
}

/// Calls that end at the moment when they become overdue, so that the app and the watchdog compete for each response.
#[test]
fn a_request_gets_one_complete_response_from_the_app_or_the_watchdog() {
    let server = Running::start(8, Duration::from_millis(50));
    let mut statuses = [0, 0];
    for _ in 0..10 {
        let streams: Vec<_> = (0..8).map(|_| server.request("/nap", "close")).collect();
        for stream in streams {
            let response = read_to_end(stream);
            assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
            let late = response.starts_with("HTTP/1.1 504 ");
            assert!(response.ends_with(if late { "too long\n" } else { "\r\n\r\ndone\n" }), "{response}");
            statuses[usize::from(late)] += 1;
        }
    }
    // A stream is sent during its call, so the watchdog may cut it off. It must not send a second head.
    for _ in 0..10 {
        let streams: Vec<_> = (0..8).map(|_| server.request("/stream", "close")).collect();
        for mut stream in streams {
            let mut response = Vec::new();
            let is_complete = stream.read_to_end(&mut response).is_ok();
            let response = String::from_utf8(response).unwrap();
            assert!(response.matches("HTTP/1.1 ").count() <= 1, "{response}");
            let ends_well = response.ends_with("too long\n") || response.ends_with("\r\n0\r\n\r\n");
            assert!(ends_well || !is_complete, "{response}");
        }
    }
    println!("{} in time, {} too late", statuses[0], statuses[1]);
    // The server keeps running: if it stopped while the first thread is overdue, it would exit this whole process.
}
