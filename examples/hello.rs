//! The smallest use of the HTTP floor: every request gets `Hello, World!`. No Python anywhere.
//!
//!     hello [--bind HOST:PORT] [--threads N | --fork]

use mlws_server::{HttpForkServer, HttpServer, Response};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut address, mut threads, mut fork) = ("127.0.0.1:8080".to_owned(), 1, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bind" => address = words.next().ok_or("--bind wants HOST:PORT")?,
            "--threads" => threads = words.next().ok_or("--threads wants a number")?.parse()?,
            "--fork" => fork = true,
            _ => {
                return Err(format!(
                    "unknown option {word}; usage: hello [--bind HOST:PORT] [--threads N | --fork]"
                )
                .into());
            }
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
