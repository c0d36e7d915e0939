//! Two servers in one process, which share a listener like two workers. One drains and hands its idle connections over to the other.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Resource, getrlimit, setrlimit};

use mlws_server::{
    Command, Concurrency, HandoverQueue, Listener, Outcome, Request, Response, Server, Settings,
};

/// A server that responds with its name. It shares its listener and its queue with others.
struct Worker {
    commands: mpsc::Sender<Command>,
    waker: UnixStream,
    thread: thread::JoinHandle<std::io::Result<Outcome>>,
}

struct Service {
    listener: Listener,
    queue: Arc<HandoverQueue>,
    concurrency: Concurrency,
    keep_alive: Duration,
}

impl Service {
    fn new(concurrency: Concurrency) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 128).unwrap();
        let queue = Arc::new(HandoverQueue::new().unwrap());
        Self { listener, queue, concurrency, keep_alive: Duration::from_secs(60) }
    }

    fn start(&self, name: &'static str) -> Worker {
        self.start_on(name, self.listener.try_clone().unwrap())
    }

    fn start_on(&self, name: &'static str, listener: Listener) -> Worker {
        let (commands, receiver) = mpsc::channel();
        self.start_with(name, listener, commands, Box::new(move || receiver.try_recv().ok()))
    }

    fn start_with(
        &self,
        name: &'static str,
        listener: Listener,
        commands: mpsc::Sender<Command>,
        next: Box<dyn FnMut() -> Option<Command> + Send>,
    ) -> Worker {
        let settings = Settings {
            concurrency: self.concurrency,
            handover: Some(Arc::clone(&self.queue)),
            keep_alive: self.keep_alive,
            ..Settings::default()
        };
        let (waker, woken) = UnixStream::pair().unwrap();
        (&waker).write_all(b"!").unwrap(); // a command that is already in the channel is handled first
        let app = move |request: &mut Request| {
            request.body().read_to_end(&mut Vec::new()).unwrap();
            Response::text(name)
        };
        let server =
            Server::new(vec![listener], settings, Arc::new(app)).command_source(OwnedFd::from(woken), next);
        Worker { commands, waker, thread: thread::spawn(|| server.run()) }
    }

    /// Connections that are idle after a first response.
    fn idle_connections(&self, count: usize) -> Vec<TcpStream> {
        let connect = |_| {
            let mut stream = self.connect();
            assert!(post(&mut stream).starts_with("HTTP/1.1 200 "));
            stream
        };
        (0..count).map(connect).collect()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.listener.local_address().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }
}

impl Worker {
    fn send(&self, command: Command) {
        self.commands.send(command).unwrap();
        (&self.waker).write_all(b"!").unwrap();
    }

    fn join(self) {
        self.thread.join().unwrap().unwrap();
    }
}

/// The response to one POST. Empty if the connection was closed.
fn post(stream: &mut TcpStream) -> String {
    let mut response = Vec::new();
    if stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").is_ok() {
        // The body is the name of a server.
        while !response.ends_with(b"\r\n\r\nfirst") && !response.ends_with(b"\r\n\r\nother") {
            let mut bytes = [0; 1000];
            match stream.read(&mut bytes) {
                Ok(count) if count > 0 => response.extend_from_slice(&bytes[..count]),
                _ => break,
            }
        }
    }
    String::from_utf8(response).unwrap()
}

fn inline_and_threaded() -> [Concurrency; 2] {
    [Concurrency::Inline, Concurrency::Threads(3)]
}

#[test]
fn a_connection_continues_in_another_worker() {
    for concurrency in inline_and_threaded() {
        let service = Service::new(concurrency);
        let first = service.start("first");
        let mut streams = service.idle_connections(20);
        let mut silent = service.connect();
        let other = service.start("other");
        first.send(Command::HandOver);
        first.join();
        for stream in streams.iter_mut().chain([&mut silent]) {
            let response = post(stream);
            assert!(response.ends_with("other") && !response.contains("Connection: close"), "{response}");
        }
        drop((streams, silent));
        other.send(Command::Drain);
        other.join();
    }
}

#[test]
fn connections_that_exceed_the_queue_are_handed_over_later() {
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = Some(limits.maximum.unwrap_or(4096).min(4096));
    setrlimit(Resource::Nofile, limits).unwrap();
    let service = Service::new(Concurrency::Inline);
    let first = service.start("first");
    let mut streams = service.idle_connections(1500);
    first.send(Command::HandOver);
    // Connections that did not fit into the queue are still served by the first server.
    let response = post(streams.last_mut().unwrap());
    assert!(response.ends_with("first") && !response.contains("Connection: close"), "{response}");
    // They are handed over when the other server takes connections from the queue.
    let other = service.start("other");
    first.join();
    for stream in &mut streams {
        let response = post(stream);
        assert!(response.ends_with("other") && !response.contains("Connection: close"), "{response}");
    }
    drop(streams);
    other.send(Command::Drain);
    other.join();
}

#[test]
fn connections_that_no_worker_has_taken_are_taken_back_for_one_more_request() {
    for concurrency in inline_and_threaded() {
        let service = Service::new(concurrency);
        let (commands, receiver) = mpsc::channel();
        // The second command arrives after the first has been handled and nothing is left to do.
        let (drain_received, drains) = mpsc::channel();
        let mut pause = false;
        let next = move || {
            if std::mem::take(&mut pause) {
                return None;
            }
            let command = receiver.try_recv().ok()?;
            pause = true;
            if command == Command::Drain {
                drain_received.send(()).unwrap();
            }
            Some(command)
        };
        let listener = service.listener.try_clone().unwrap();
        let first = service.start_with("first", listener, commands, Box::new(next));
        let mut streams = service.idle_connections(20);
        first.commands.send(Command::HandOver).unwrap();
        first.send(Command::Drain);
        drains.recv().unwrap();
        for stream in &mut streams {
            let response = post(stream);
            assert!(response.ends_with("first") && response.contains("Connection: close\r\n"), "{response}");
        }
        drop(streams);
        first.join();
    }
}

#[test]
fn a_worker_that_drains_serves_the_connections_in_the_queue_first() {
    let service = Service::new(Concurrency::Inline);
    let first = service.start("first");
    let mut streams = service.idle_connections(20);
    first.send(Command::HandOver);
    first.join();
    let (commands, receiver) = mpsc::channel();
    commands.send(Command::Drain).unwrap();
    let listener = service.listener.try_clone().unwrap();
    let other = service.start_with("other", listener, commands, Box::new(move || receiver.try_recv().ok()));
    for stream in &mut streams {
        let response = post(stream);
        assert!(response.ends_with("other") && response.contains("Connection: close\r\n"), "{response}");
    }
    drop(streams);
    other.join();
}

#[test]
fn a_connection_of_an_unknown_listener_may_send_one_more_request() {
    let service = Service::new(Concurrency::Inline);
    let first = service.start("first");
    let mut streams = service.idle_connections(1);
    let elsewhere = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 128).unwrap();
    let other = service.start_on("other", elsewhere);
    first.send(Command::HandOver);
    first.join();
    let response = post(&mut streams[0]);
    assert!(response.ends_with("other") && response.contains("Connection: close\r\n"), "{response}");
    drop(streams);
    other.send(Command::Drain);
    other.join();
}

#[test]
fn connections_in_the_queue_are_closed_with_it() {
    let service = Service::new(Concurrency::Inline);
    let first = service.start("first");
    let mut streams = service.idle_connections(3);
    first.send(Command::HandOver);
    first.join();
    drop(service);
    for stream in &mut streams {
        assert_eq!(post(stream), "");
    }
}
