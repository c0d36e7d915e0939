//! Runs every committed input through the check of its target: the corpora, and inputs that failed in the past.
//!
//! Needs neither a nightly compiler nor cargo-fuzz.

use std::fs;
use std::path::Path;

type Check = fn(&[u8]);

#[test]
fn every_corpus_input_and_past_crash_passes() {
    let targets: [(&str, Check); 8] = [
        ("head", mlws_fuzz::head::check),
        ("chunked", mlws_fuzz::chunked::check),
        ("machine", mlws_fuzz::machine::check),
        ("target", mlws_fuzz::target::check),
        ("response", mlws_fuzz::response::check),
        ("proxy", mlws_fuzz::proxy::check),
        ("http2", mlws_fuzz::http2::check),
        ("tls", mlws_fuzz::tls::check),
    ];
    for (name, check) in targets {
        let seeds = run(&format!("corpus/{name}"), check);
        assert!(seeds > 0, "the corpus of {name} is empty");
        run(&format!("crashes/{name}"), check);
    }
}

/// Checks all files in a directory and returns their number.
fn run(directory: &str, check: Check) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let Ok(files) = fs::read_dir(directory) else { return 0 };
    let paths = files
        .map(|file| file.expect("unreadable directory entry").path())
        .filter(|path| path.extension().is_none());
    paths
        .map(|path| {
            println!("{}", path.display()); // printed if the check fails
            check(&fs::read(path).expect("unreadable file"));
        })
        .count()
}
