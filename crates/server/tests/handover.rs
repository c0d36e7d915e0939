//! Two servers in one process, as two workers have them: one drains and hands its idle connections over to the other.

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

/// A server that answers with its name. It shares its listener and its queue with others.
struct Worker {
    commands_of_source: mpsc::Sender<Command>,
    wakes: UnixStream,
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
        let (commands_of_source, inbox) = mpsc::channel();
        self.start_with(name, listener, commands_of_source, Box::new(move || inbox.try_recv().ok()))
    }

    fn start_with(
        &self,
        name: &'static str,
        listener: Listener,
        commands_of_source: mpsc::Sender<Command>,
        next: Box<dyn FnMut() -> Option<Command> + Send>,
    ) -> Worker {
        let settings = Settings {
            concurrency: self.concurrency,
            handover: Some(Arc::clone(&self.queue)),
            keep_alive: self.keep_alive,
            ..Settings::default()
        };
        let (wakes, woken) = UnixStream::pair().unwrap();
        (&wakes).write_all(b"!").unwrap(); // an order that is there already comes first
        let app = move |request: &mut Request| {
            request.body().read_to_end(&mut Vec::new()).unwrap();
            Response::text(name)
        };
        let server =
            Server::new(vec![listener], settings, Arc::new(app)).command_source(OwnedFd::from(woken), next);
        Worker { commands_of_source, wakes, thread: thread::spawn(|| server.run()) }
    }

    /// Connections that are idle after a first answer.
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
    fn order(&self, order: Command) {
        self.commands_of_source.send(order).unwrap();
        (&self.wakes).write_all(b"!").unwrap();
    }

    fn join(self) {
        self.thread.join().unwrap().unwrap();
    }
}

/// The answer to one POST; empty if the connection was closed.
fn post(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    if stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").is_ok() {
        // The names all have five letters, and nothing else does.
        while !answer.ends_with(b"\r\n\r\nfirst") && !answer.ends_with(b"\r\n\r\nother") {
            let mut bytes = [0; 1000];
            match stream.read(&mut bytes) {
                Ok(count) if count > 0 => answer.extend_from_slice(&bytes[..count]),
                _ => break,
            }
        }
    }
    String::from_utf8(answer).unwrap()
}

fn each_way() -> [Concurrency; 2] {
    [Concurrency::Inline, Concurrency::Threads(3)]
}

#[test]
fn a_connection_goes_on_at_another_worker_and_neither_answer_closes_it() {
    for concurrency in each_way() {
        let service = Service::new(concurrency);
        let first = service.start("first");
        let mut streams = service.idle_connections(20);
        let mut silent = service.connect();
        let other = service.start("other");
        first.order(Command::HandOver);
        first.join();
        for stream in streams.iter_mut().chain([&mut silent]) {
            let answer = post(stream);
            assert!(answer.ends_with("other") && !answer.contains("Connection: close"), "{answer}");
        }
        other.order(Command::Stop);
        other.join();
    }
}

#[test]
fn more_connections_than_the_queue_holds_wait_for_another_worker_and_none_is_lost() {
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = Some(limits.maximum.unwrap_or(4096).min(4096));
    setrlimit(Resource::Nofile, limits).unwrap();
    let service = Service::new(Concurrency::Inline);
    let first = service.start("first");
    let mut streams = service.idle_connections(1500);
    first.order(Command::HandOver);
    // Those that found no room are still served where they were.
    let answer = post(streams.last_mut().unwrap());
    assert!(answer.ends_with("first") && !answer.contains("Connection: close"), "{answer}");
    // They follow as soon as somebody takes the others from the queue.
    let other = service.start("other");
    first.join();
    for stream in &mut streams {
        let answer = post(stream);
        assert!(answer.ends_with("other") && !answer.contains("Connection: close"), "{answer}");
    }
    other.order(Command::Stop);
    other.join();
}

#[test]
fn what_nobody_has_taken_is_taken_back_at_the_end_and_gets_one_more_answer() {
    for concurrency in each_way() {
        let service = Service::new(concurrency);
        let (commands_of_source, inbox) = mpsc::channel();
        // The second order is there when the first was carried out and nothing is left to do.
        let (told_to_drain, drains) = mpsc::channel();
        let mut pause = false;
        let next = move || {
            if std::mem::take(&mut pause) {
                return None;
            }
            let order = inbox.try_recv().ok()?;
            pause = true;
            if order == Command::Drain {
                told_to_drain.send(()).unwrap();
            }
            Some(order)
        };
        let listener = service.listener.try_clone().unwrap();
        let first = service.start_with("first", listener, commands_of_source, Box::new(next));
        let mut streams = service.idle_connections(20);
        first.commands_of_source.send(Command::HandOver).unwrap();
        first.order(Command::Drain);
        drains.recv().unwrap();
        for stream in &mut streams {
            let answer = post(stream);
            assert!(answer.ends_with("first") && answer.contains("Connection: close\r\n"), "{answer}");
        }
        drop(streams);
        first.join();
    }
}

#[test]
fn a_worker_that_drains_first_takes_what_others_have_handed_over() {
    let service = Service::new(Concurrency::Inline);
    let first = service.start("first");
    let mut streams = service.idle_connections(20);
    first.order(Command::HandOver);
    first.join();
    let (commands_of_source, inbox) = mpsc::channel();
    commands_of_source.send(Command::Drain).unwrap();
    let listener = service.listener.try_clone().unwrap();
    let other =
        service.start_with("other", listener, commands_of_source, Box::new(move || inbox.try_recv().ok()));
    for stream in &mut streams {
        let answer = post(stream);
        assert!(answer.ends_with("other") && answer.contains("Connection: close\r\n"), "{answer}");
    }
    drop(streams);
    other.join();
}

#[test]
fn a_connection_whose_listener_is_gone_gets_one_more_answer() {
    let service = Service::new(Concurrency::Inline);
    let first = service.start("first");
    let mut streams = service.idle_connections(1);
    let elsewhere = Listener::bind(&"127.0.0.1:0".parse().unwrap(), 128).unwrap();
    let other = service.start_on("other", elsewhere);
    first.order(Command::HandOver);
    first.join();
    let answer = post(&mut streams[0]);
    assert!(answer.ends_with("other") && answer.contains("Connection: close\r\n"), "{answer}");
    other.order(Command::Stop);
    other.join();
}

#[test]
fn connections_that_nobody_takes_are_closed_with_the_queue() {
    let service = Service::new(Concurrency::Inline);
    let first = service.start("first");
    let mut streams = service.idle_connections(3);
    first.order(Command::HandOver);
    first.join();
    drop(service);
    for stream in &mut streams {
        assert_eq!(post(stream), "");
    }
}
