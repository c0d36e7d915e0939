//! Threads started by the application.
//!
//! They matter for forks. A child joins the threads of its request before it exits, like Python at the end of a program. It has none of its
//! parent's threads.

use std::{collections::HashMap, fs};

use pyo3::{intern, prelude::*};

/// Whether non-daemon threads run, which Python joins before it exits.
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

/// Joins non-daemon threads and runs `threading` exit callbacks, such as those of `concurrent.futures`. The interpreter calls the same
/// function at exit. It has no public name.
pub fn join_background_threads(py: Python<'_>) -> PyResult<()> {
    let Some(threading) = threading(py)? else { return Ok(()) };
    threading.call_method0(intern!(py, "_shutdown")).map(drop)
}

/// The names of all threads of this process except the calling one. For threads that were not created by Python, the kernel's names.
pub fn other_threads(py: Python<'_>) -> Vec<String> {
    let names = names_by_id(py).unwrap_or_default(); // the kernel's names are the fallback
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

/// The `threading` module if it was imported. Otherwise Python has not created threads.
fn threading(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    let module = modules.call_method1(intern!(py, "get"), (intern!(py, "threading"),))?;
    Ok(Some(module).filter(|module| !module.is_none()))
}
