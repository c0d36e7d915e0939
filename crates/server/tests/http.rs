//! The HTTP floor on real sockets: what a client sees, in one thread and in many.

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
    Aborted, App, Body, Bytes, Command, Concurrency, Listener, Outcome, Request, Response, Server, Settings,
    Stream,
};

/// A server on a free port, ended when this is dropped.
struct Running {
    address: String,
    commands_of_source: mpsc::Sender<Command>,
    bell: UnixStream,
    thread: Option<thread::JoinHandle<std::io::Result<Outcome>>>,
}

impl Running {
    fn start(app: impl App + 'static, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let address = listener.local_address().unwrap().to_string();
        let mut settings = Settings::default();
        change(&mut settings);
        let (commands_of_source, inbox) = mpsc::channel();
        let (bell, ear) = UnixStream::pair().unwrap();
        let server = Server::new(vec![listener], settings, Arc::new(app))
            .command_source(OwnedFd::from(ear), Box::new(move || inbox.try_recv().ok()));
        Self { address, commands_of_source, bell, thread: Some(thread::spawn(|| server.run())) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends bytes on a fresh connection and reads until the server closes.
    fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn order(&self, order: Command) {
        self.commands_of_source.send(order).unwrap();
        (&self.bell).write_all(b"!").unwrap();
    }

    /// Waits until the server has ended by itself.
    fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.order(Command::Stop);
            self.join();
        }
    }
}

/// Answers with what it was asked.
fn echo(request: &mut Request) -> Response {
    let mut text = format!("{} {} ", request.method(), request.target()).into_bytes();
    request.body().read_to_end(&mut text).unwrap();
    text.push(b'\n');
    Response::text(text)
}

fn both_ways() -> [Concurrency; 2] {
    [Concurrency::Inline, Concurrency::Threads(4)]
}

#[test]
fn three_requests_in_one_packet_are_answered_in_order() {
    for concurrency in both_ways() {
        let server = Running::start(echo, |settings| settings.concurrency = concurrency);
        let answer = server.talk(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
              GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
        let at = |text| answer.find(text).unwrap_or_else(|| panic!("{text} missing in {answer}"));
        assert!(at("GET /1 \n") < at("POST /2 abc\n") && at("POST /2 abc\n") < at("GET /3 \n"));
    }
}

#[test]
fn a_request_in_single_bytes_is_the_same_request() {
    let server = Running::start(echo, |_| ());
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("POST /x abcde\n"), "{answer}");
}

#[test]
fn a_body_past_the_memory_limit_goes_through_a_file_whole() {
    for concurrency in both_ways() {
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
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("3000000 3000000"), "{answer}");

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
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("3000000 3000000"), "{answer}");
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
fn a_bad_request_gets_its_status_and_nothing_behind_it_is_run() {
    let server = Running::start(echo, |_| ());
    let answer = server.talk(b"GET / HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("Connection: close\r\n") && !answer.contains("/second"), "{answer}");
}

#[test]
fn a_refusal_can_be_read_by_a_client_that_is_still_sending() {
    let server = Running::start(echo, |settings| settings.limits.body = 1000);
    let mut stream = server.connect();
    write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n").unwrap();
    stream.write_all(&vec![b'x'; 2_000_000]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn a_silent_client_gets_408_or_a_close_and_an_idle_one_a_close() {
    let server = Running::start(echo, |settings| {
        settings.head_timeout = Duration::from_millis(150);
        settings.body_timeout = Duration::from_millis(150);
        settings.keep_alive = Duration::from_millis(150);
    });
    assert!(server.talk(b"GET / HT").starts_with("HTTP/1.1 408 "));
    assert!(
        server.talk(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").starts_with("HTTP/1.1 408 ")
    );
    assert!(server.talk(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("GET /x \n"));
    assert_eq!(server.talk(b""), "");
}

#[test]
fn a_panic_is_a_500_and_the_server_lives() {
    for concurrency in both_ways() {
        let server = Running::start(
            |request: &mut Request| {
                assert!(request.target() != "/panic", "on purpose");
                Response::text("fine\n")
            },
            |settings| settings.concurrency = concurrency,
        );
        let answer = server.talk(b"GET /panic HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        let answer = server.talk(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.ends_with("fine\n"), "{answer}");
    }
}

/// Gives `left` pieces; tells how many were pulled and that it was dropped.
struct Pieces {
    left: usize,
    fail: bool,
    told: mpsc::Sender<&'static str>,
}

impl Stream for Pieces {
    fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        if self.left == 0 {
            return if self.fail { Err(Aborted) } else { Ok(None) };
        }
        self.left -= 1;
        self.told.send("pulled").unwrap();
        Ok(Some(vec![b'p'; 64 * 1024].into()))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.told.send("dropped").unwrap();
    }
}

fn streaming(left: usize, fail: bool, told: &mpsc::Sender<&'static str>) -> impl App + 'static {
    let told = told.clone();
    move |request: &mut Request| {
        if request.target() == "/quick" {
            return Response::text("quick\n");
        }
        let stream = Box::new(Pieces { left, fail, told: told.clone() });
        Response::new(ResponseHead::new(200, b"OK").unwrap(), Body::Stream { stream, length: None })
    }
}

const STREAM: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const QUICK: &[u8] = b"GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn read_stream(mut client: TcpStream) {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"\r\n0\r\n\r\n"));
    assert!(answer.len() > 64_000_000);
}

#[test]
fn a_stream_for_a_slow_reader_is_buffered_to_its_end_and_holds_no_thread() {
    for (concurrency, response_memory) in [
        (Concurrency::Inline, 1 << 20),
        (Concurrency::Threads(4), 1 << 20),
        (Concurrency::Threads(4), 1 << 30),
    ] {
        let (told, heard) = mpsc::channel();
        let server = Running::start(streaming(1000, false, &told), |settings| {
            (settings.concurrency, settings.response_memory) = (concurrency, response_memory);
        });
        let mut slow = server.connect();
        slow.write_all(STREAM).unwrap();
        assert_eq!(heard.iter().find(|what| *what == "dropped"), Some("dropped"));
        let answer = server.talk(QUICK);
        assert!(answer.ends_with("quick\n"), "{answer}");
        read_stream(slow);
    }
}

#[test]
fn past_its_bounds_a_stream_waits_for_its_reader_while_other_threads_serve() {
    let (told, heard) = mpsc::channel();
    let server = Running::start(streaming(1000, false, &told), |settings| {
        settings.concurrency = Concurrency::Threads(4);
        (settings.response_memory, settings.response_spool) = (1 << 20, 4 << 20);
    });
    let mut slow = server.connect();
    slow.write_all(STREAM).unwrap();
    for _ in 0..50 {
        let answer = server.talk(QUICK);
        assert!(answer.ends_with("quick\n"), "{answer}");
    }
    let pulled = heard.try_iter().filter(|what| *what == "pulled").count();
    assert!(pulled < 400, "{pulled} of 1000 pieces were pulled for a client that reads nothing");
    read_stream(slow);
    assert_eq!(heard.iter().find(|what| *what == "dropped"), Some("dropped"));
}

#[test]
fn a_stream_that_fails_ends_so_that_the_client_can_tell() {
    let (told, _heard) = mpsc::channel();
    let server = Running::start(streaming(2, true, &told), |_| ());
    let answer = server.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.ends_with("p\r\n"), "the last chunk is missing");
}

#[test]
fn a_stream_is_dropped_when_its_client_is_gone() {
    for concurrency in both_ways() {
        let (told, heard) = mpsc::channel();
        let server =
            Running::start(streaming(100_000, false, &told), |settings| settings.concurrency = concurrency);
        let mut stream = server.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(heard.recv(), Ok("pulled"));
        drop(stream);
        assert_eq!(heard.iter().find(|what| *what == "dropped"), Some("dropped"));
    }
}

#[test]
fn a_client_that_only_ended_its_own_side_still_gets_its_answer() {
    let server = Running::start(echo, |_| ());
    let mut stream = server.connect();
    stream.write_all(b"GET /half HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("GET /half \n"), "{answer}");
}

#[test]
fn blocked_threads_leave_one_that_still_answers_refuses_and_takes_over() {
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
    // The queue holds one; which of two comes first is the system's business, so ask until the refusal shows.
    let refused = (0..100).any(|_| {
        let mut stream = server.connect();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: ")
    });
    assert!(refused);
    for _ in 0..200 {
        let _ = open.send(());
    }
    for stream in blocked.iter_mut().chain([&mut waiting]) {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("done\n"), "{answer}");
    }
}

#[test]
fn draining_finishes_what_runs_and_tells_it_to_close() {
    for concurrency in both_ways() {
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
        server.order(Command::Drain);
        let draining = concurrency != Concurrency::Inline;
        if draining {
            // An idle connection gets one more answer, and so does one on which nothing was asked yet.
            for stream in [&mut idle, &mut new] {
                stream.write_all(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.contains("Connection: close\r\n"), "{answer}");
                assert!(answer.ends_with("finished\n"), "{answer}");
            }
        }
        drop((idle, new));
        open.send(()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("finished\n"), "{answer}");
        // Inline, the order is only read once the answer has left.
        assert_eq!(answer.contains("Connection: close\r\n"), draining, "{answer}");
        server.join();
    }
}

/// What an application does after its response was sent: it takes a while.
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
        // No deadline may wake the leader by chance.
        (settings.keep_alive, settings.timeout) = (Duration::from_secs(600), None);
    });
    let mut stream = server.connect();
    for number in 0..5 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut piece = [0; 1024];
            let count = stream.read(&mut piece).unwrap_or_else(|error| panic!("request {number}: {error}"));
            assert!(count > 0, "closed before request {number} was answered");
            answer.extend_from_slice(&piece[..count]);
        }
    }
}
