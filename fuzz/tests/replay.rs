//! Runs every committed input through its target's check: the seeds, and whatever once failed.
//!
//! The one thing to know: this needs neither a nightly compiler nor cargo-fuzz.

use std::fs;
use std::path::Path;

type Check = fn(&[u8]);

#[test]
fn every_seed_and_every_old_crash_passes() {
    let targets: [(&str, Check); 6] = [
        ("head", mlws_fuzz::head::check),
        ("chunked", mlws_fuzz::chunked::check),
        ("machine", mlws_fuzz::machine::check),
        ("target", mlws_fuzz::target::check),
        ("response", mlws_fuzz::response::check),
        ("proxy", mlws_fuzz::proxy::check),
    ];
    for (name, check) in targets {
        let seeds = run(&format!("corpus/{name}"), check);
        assert!(seeds > 0, "there are seeds for {name}");
        run(&format!("crashes/{name}"), check);
    }
}

/// Checks all files of a folder and returns how many there are.
fn run(folder: &str, check: Check) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let Ok(files) = fs::read_dir(folder) else { return 0 };
    let paths = files.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_none());
    paths
        .map(|path| {
            println!("{}", path.display()); // shown where the check fails
            check(&fs::read(path).expect("it can be read"));
        })
        .count()
}
