//! The smallest server: a Rust callback that answers every request with `Hello, World!`. No Python.
//!
//!     hello [--bind HOST:PORT] [--threads N | --fork]

use mlws_server::{HttpForkServer, HttpServer, Response};

const USAGE: &str = "usage: hello [--bind HOST:PORT] [--threads N | --fork]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut address, mut threads, mut fork) = ("127.0.0.1:8080".to_owned(), 1, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bind" => address = args.next().ok_or("--bind requires HOST:PORT")?,
            "--threads" => threads = args.next().ok_or("--threads requires a number")?.parse()?,
            "--fork" => fork = true,
            _ => return Err(format!("unknown argument '{arg}'; {USAGE}").into()),
        }
    }
    let hello = |_: &mut _| Response::text("Hello, World!\n");
    if fork {
        let server = HttpForkServer::bind(address)?;
        eprintln!("Listening at: {} (one process per request)", server.url());
        server.serve(hello)?;
    } else {
        let server = HttpServer::bind(address)?.threads(threads);
        eprintln!("Listening at: {} ({threads} threads)", server.url());
        server.serve(hello)?;
    }
    Ok(())
}
