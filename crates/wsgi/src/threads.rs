//! Threads that the application starts beside those of the server.
//!
//! They matter where processes are forked: a child waits for the threads of its request before it exits, as Python itself does at the
//! end of a program, and has none of the threads of its parent.

use std::{collections::HashMap, fs};

use pyo3::{intern, prelude::*};

/// Whether threads run that a Python program waits for before it exits: all but daemon threads.
pub fn has_background_threads(py: Python<'_>) -> PyResult<bool> {
    let Some(threading) = threading(py)? else { return Ok(false) };
    if threading.call_method0(intern!(py, "active_count"))?.extract::<usize>()? < 2 {
        return Ok(false);
    }
    let main = threading.call_method0(intern!(py, "main_thread"))?;
    for thread in threading.call_method0(intern!(py, "enumerate"))?.try_iter()? {
        let thread = thread?;
        if !thread.is(&main) && !thread.getattr(intern!(py, "daemon"))?.is_truthy()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits for these threads, and runs what libraries have registered to be run then (the executors of `concurrent.futures`). The
/// interpreter calls the same function at its end; it has no public name.
pub fn join_background_threads(py: Python<'_>) -> PyResult<()> {
    let Some(threading) = threading(py)? else { return Ok(()) };
    threading.call_method0(intern!(py, "_shutdown")).map(drop)
}

/// The names of the threads of this process other than the calling one. Threads that Python does not know have the name that the
/// system has for them.
pub fn other_threads(py: Python<'_>) -> Vec<String> {
    let names = names_by_id(py).unwrap_or_default(); // without them, the system's names remain
    let own = rustix::thread::gettid().as_raw_pid();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let name = |id| {
        let known = names.get(&id).cloned();
        known.or_else(|| {
            Some(fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?.trim().to_owned())
        })
    };
    ids.filter(|id| *id != own).filter_map(name).collect()
}

fn names_by_id(py: Python<'_>) -> PyResult<HashMap<i32, String>> {
    let mut names = HashMap::new();
    let Some(threading) = threading(py)? else { return Ok(names) };
    for thread in threading.call_method0("enumerate")?.try_iter()? {
        let thread = thread?;
        if let Some(id) = thread.getattr("native_id")?.extract()? {
            names.insert(id, thread.getattr("name")?.extract()?);
        }
    }
    Ok(names)
}

/// Python's module, if anything has imported it: without it, there are no threads that it would know.
fn threading(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    let module = modules.call_method1(intern!(py, "get"), (intern!(py, "threading"),))?;
    Ok(Some(module).filter(|module| !module.is_none()))
}
