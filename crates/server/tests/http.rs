//! A server on real sockets, as a client sees it, with one thread and with several.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use mlws_http1::ResponseHead;
use mlws_server::{
    Aborted, App, Body, Bytes, Command, Concurrency, Listener, Outcome, Request, Response, Server,
    ServerEvent, Settings, Stream,
};

/// A server on a free port. It drains when this is dropped. (`Command::Stop` may exit the process while a thread is inside
/// the app, and with it all tests.)
struct Running {
    address: String,
    commands: mpsc::Sender<Command>,
    waker: UnixStream,
    thread: Option<thread::JoinHandle<std::io::Result<Outcome>>>,
}

impl Running {
    fn start(app: impl App + 'static, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let address = listener.local_address().unwrap().to_string();
        let mut settings = Settings::default();
        change(&mut settings);
        let (commands, inbox) = mpsc::channel();
        let (waker, woken) = UnixStream::pair().unwrap();
        let server = Server::new(vec![listener], settings, Arc::new(app))
            .command_source(OwnedFd::from(woken), Box::new(move || inbox.try_recv().ok()));
        Self { address, commands, waker, thread: Some(thread::spawn(|| server.run())) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends bytes on a fresh connection and reads until the server closes.
    fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        String::from_utf8(response).unwrap()
    }

    fn send(&self, command: Command) {
        self.commands.send(command).unwrap();
        (&self.waker).write_all(b"!").unwrap();
    }

    /// Waits until the server has stopped.
    fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.send(Command::Drain);
            self.join();
        }
    }
}

/// Responds with the method, target and body of the request.
fn echo(request: &mut Request) -> Response {
    let mut text = format!("{} {} ", request.method(), request.target()).into_bytes();
    request.body().read_to_end(&mut text).unwrap();
    text.push(b'\n');
    Response::text(text)
}

fn inline_and_threaded() -> [Concurrency; 2] {
    [Concurrency::Inline, Concurrency::Threads(4)]
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for concurrency in inline_and_threaded() {
        let server = Running::start(echo, |settings| settings.concurrency = concurrency);
        let response = server.exchange(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
              GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
        let at = |text| response.find(text).unwrap_or_else(|| panic!("{text} missing in {response}"));
        assert!(at("GET /1 \n") < at("POST /2 abc\n") && at("POST /2 abc\n") < at("GET /3 \n"));
    }
}

#[test]
fn a_request_may_arrive_byte_by_byte() {
    let server = Running::start(echo, |_| ());
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("POST /x abcde\n"), "{response}");
}

#[test]
fn a_body_that_exceeds_the_memory_limit_is_spooled_to_a_file() {
    for concurrency in inline_and_threaded() {
        let server = Running::start(
            |request: &mut Request| {
                assert!(request.body().is_spooled());
                let mut body = Vec::new();
                request.body().read_to_end(&mut body).unwrap();
                assert!(body.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
                Response::text(format!("{} {}", body.len(), request.body().length()))
            },
            |settings| {
                (settings.body_in_memory, settings.bodies_in_memory) = (10_000, 0);
                settings.concurrency = concurrency;
            },
        );
        let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let mut stream = server.connect();
        write!(
            stream,
            "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(&body).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.ends_with("3000000 3000000"), "{response}");

        let mut stream = server.connect();
        write!(
            stream,
            "PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        .unwrap();
        for piece in body.chunks(7001) {
            write!(stream, "{:x}\r\n", piece.len()).unwrap();
            stream.write_all(piece).unwrap();
            stream.write_all(b"\r\n").unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.ends_with("3000000 3000000"), "{response}");
    }
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_before_it_sends_the_body() {
    let server = Running::start(echo, |_| ());
    let mut stream = server.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    stream.write_all(b"ok").unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("POST / ok\n"), "{rest}");
}

#[test]
fn an_invalid_request_gets_its_status_and_ends_the_connection() {
    let server = Running::start(echo, |_| ());
    let response = server.exchange(b"GET / HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{response}");
    assert!(response.contains("Connection: close\r\n") && !response.contains("/second"), "{response}");
}

#[test]
fn a_client_that_is_still_sending_can_read_an_error_response() {
    let server = Running::start(echo, |settings| settings.limits.body = 1000);
    let mut stream = server.connect();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n").unwrap();
    stream.write_all(&vec![b'x'; 2_000_000]).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
}

#[test]
fn a_slow_request_gets_408_and_an_idle_connection_is_closed() {
    let server = Running::start(echo, |settings| {
        settings.head_timeout = Duration::from_millis(150);
        settings.body_timeout = Duration::from_millis(150);
        settings.keep_alive = Duration::from_millis(150);
    });
    assert!(server.exchange(b"GET / HT").starts_with("HTTP/1.1 408 "));
    assert!(
        server
            .exchange(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
            .starts_with("HTTP/1.1 408 ")
    );
    assert!(server.exchange(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("GET /x \n"));
    assert_eq!(server.exchange(b""), "");
}

#[test]
fn a_panic_of_the_app_is_a_500_and_the_server_continues() {
    for concurrency in inline_and_threaded() {
        let server = Running::start(
            |request: &mut Request| {
                assert!(request.target() != "/panic", "on purpose");
                Response::text("fine\n")
            },
            |settings| settings.concurrency = concurrency,
        );
        let response = server.exchange(b"GET /panic HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
        let response = server.exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(response.ends_with("fine\n"), "{response}");
    }
}

#[test]
fn a_panic_outside_of_requests_ends_the_server_with_an_error() {
    for concurrency in inline_and_threaded() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let mut stream = TcpStream::connect(listener.local_address().unwrap()).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let settings = Settings { concurrency, max_requests: Some(1), ..Settings::default() };
        let server = Server::new(vec![listener], settings, Arc::new(echo)).on_event(Box::new(|event| {
            assert!(event != ServerEvent::RecycleLimitReached, "on purpose");
        }));
        assert!(server.run().unwrap_err().to_string().contains("panicked"));
    }
}

/// A stream of `left` chunks. Reports each call and the drop.
struct Chunks {
    left: usize,
    fail: bool,
    events: mpsc::Sender<&'static str>,
}

impl Stream for Chunks {
    fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        if self.left == 0 {
            return if self.fail { Err(Aborted) } else { Ok(None) };
        }
        self.left -= 1;
        self.events.send("next").unwrap();
        Ok(Some(vec![b'p'; 64 * 1024].into()))
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.events.send("dropped").unwrap();
    }
}

fn streaming(left: usize, fail: bool, events: &mpsc::Sender<&'static str>) -> impl App + 'static {
    let events = events.clone();
    move |request: &mut Request| {
        if request.target() == "/quick" {
            return Response::text("quick\n");
        }
        let stream = Box::new(Chunks { left, fail, events: events.clone() });
        Response::new(ResponseHead::new(200, b"OK").unwrap(), Body::Stream { stream, length: None })
    }
}

const STREAM: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const QUICK: &[u8] = b"GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn read_stream(mut client: TcpStream) {
    let mut response = Vec::new();
    client.read_to_end(&mut response).unwrap();
    assert!(response.ends_with(b"\r\n0\r\n\r\n"));
    assert!(response.len() > 64_000_000);
}

#[test]
fn a_stream_for_a_slow_client_is_buffered_and_does_not_occupy_a_thread() {
    for (concurrency, response_memory) in [
        (Concurrency::Inline, 1 << 20),
        (Concurrency::Threads(4), 1 << 20),
        (Concurrency::Threads(4), 1 << 30),
    ] {
        let (events, received) = mpsc::channel();
        let server = Running::start(streaming(1000, false, &events), |settings| {
            (settings.concurrency, settings.response_memory) = (concurrency, response_memory);
        });
        let mut slow = server.connect();
        slow.write_all(STREAM).unwrap();
        assert_eq!(received.iter().find(|what| *what == "dropped"), Some("dropped"));
        let response = server.exchange(QUICK);
        assert!(response.ends_with("quick\n"), "{response}");
        read_stream(slow);
    }
}

#[test]
fn a_stream_that_exceeds_its_buffers_waits_for_its_client_while_other_threads_serve() {
    let (events, received) = mpsc::channel();
    let server = Running::start(streaming(1000, false, &events), |settings| {
        settings.concurrency = Concurrency::Threads(4);
        (settings.response_memory, settings.response_spool) = (1 << 20, 4 << 20);
    });
    let mut slow = server.connect();
    slow.write_all(STREAM).unwrap();
    for _ in 0..50 {
        let response = server.exchange(QUICK);
        assert!(response.ends_with("quick\n"), "{response}");
    }
    let count = received.try_iter().filter(|what| *what == "next").count();
    assert!(count < 400, "{count} of 1000 chunks were produced for a client that reads nothing");
    read_stream(slow);
    assert_eq!(received.iter().find(|what| *what == "dropped"), Some("dropped"));
}

#[test]
fn a_stream_that_fails_ends_without_its_last_chunk() {
    let (events, _received) = mpsc::channel();
    let server = Running::start(streaming(2, true, &events), |_| ());
    let response = server.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.ends_with("p\r\n"), "the last chunk is missing");
}

#[test]
fn a_stream_is_dropped_when_its_client_disconnects() {
    for concurrency in inline_and_threaded() {
        let (events, received) = mpsc::channel();
        let server =
            Running::start(streaming(100_000, false, &events), |settings| settings.concurrency = concurrency);
        let mut stream = server.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(received.recv(), Ok("next"));
        drop(stream);
        assert_eq!(received.iter().find(|what| *what == "dropped"), Some("dropped"));
    }
}

#[test]
fn a_client_that_half_closes_its_connection_gets_its_response() {
    let server = Running::start(echo, |_| ());
    let mut stream = server.connect();
    stream.write_all(b"GET /half HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("GET /half \n"), "{response}");
}

#[test]
fn with_all_threads_blocked_requests_are_queued_and_then_rejected() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let (entered, inside) = mpsc::channel();
    let app = move |request: &mut Request| {
        if request.target() == "/block" {
            entered.send(()).unwrap();
            let _ = gate.lock().unwrap().recv();
        }
        Response::text("done\n")
    };
    let server = Running::start(app, |settings| {
        settings.concurrency = Concurrency::Threads(2);
        settings.queue = 1;
    });
    let block = b"GET /block HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut blocked: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(block).unwrap();
            inside.recv_timeout(Duration::from_secs(20)).unwrap();
            stream
        })
        .collect();
    let mut waiting = server.connect();
    waiting.write_all(b"GET /waiting HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    // The queue holds one request. The kernel decides which of two arrives first, so repeat until one is rejected.
    let is_rejected = (0..100).any(|_| {
        let mut stream = server.connect();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        let _ = stream.read_to_string(&mut response);
        response.starts_with("HTTP/1.1 503 ") && response.contains("Retry-After: ")
    });
    assert!(is_rejected);
    for _ in 0..200 {
        let _ = open.send(());
    }
    for stream in blocked.iter_mut().chain([&mut waiting]) {
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.ends_with("done\n"), "{response}");
    }
}

#[test]
fn a_drain_finishes_running_requests_and_closes_connections() {
    for concurrency in inline_and_threaded() {
        let (open, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let (entered, inside) = mpsc::channel();
        let app = move |request: &mut Request| {
            if request.target() == "/" {
                entered.send(()).unwrap();
                let _ = gate.lock().unwrap().recv();
            }
            Response::text("finished\n")
        };
        let mut server = Running::start(app, |settings| settings.concurrency = concurrency);
        let (mut idle, mut new) = (server.connect(), server.connect());
        idle.write_all(b"HEAD /at/once HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(idle.read(&mut [0; 1000]).unwrap() > 0);
        let mut stream = server.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        inside.recv().unwrap();
        server.send(Command::Drain);
        let draining = concurrency != Concurrency::Inline;
        if draining {
            // An idle connection may send one more request, and so may a new one.
            for stream in [&mut idle, &mut new] {
                stream.write_all(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                let mut response = String::new();
                stream.read_to_string(&mut response).unwrap();
                assert!(response.contains("Connection: close\r\n"), "{response}");
                assert!(response.ends_with("finished\n"), "{response}");
            }
        }
        drop((idle, new));
        open.send(()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.ends_with("finished\n"), "{response}");
        // Inline, the command is read after the response is sent.
        assert_eq!(response.contains("Connection: close\r\n"), draining, "{response}");
        server.join();
    }
}

/// A slow completion callback.
struct SlowCompletion;

impl Drop for SlowCompletion {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_thread_that_finishes_its_completion_callback_wakes_a_leader_that_has_requests_queued() {
    let app = |_: &mut Request| Response::text("ok\n").on_complete(Box::new(SlowCompletion));
    let server = Running::start(app, |settings| {
        settings.concurrency = Concurrency::Threads(2);
        // No deadline wakes the leader.
        (settings.keep_alive, settings.timeout) = (Duration::from_secs(600), None);
    });
    let mut stream = server.connect();
    for number in 0..5 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"ok\n") {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).unwrap_or_else(|error| panic!("request {number}: {error}"));
            assert!(count > 0, "closed before the response to request {number}");
            response.extend_from_slice(&piece[..count]);
        }
    }
}
