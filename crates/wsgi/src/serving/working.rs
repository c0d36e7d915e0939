//! A worker: loads the application, serves, and does as it is ordered.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mlws_server::{Ended, Notice, Server, leave_stuck};
use mlws_supervisor::{Order, Worker};
use pyo3::prelude::*;

use super::{flush_python, house::House};
use crate::{
    hooks::Hooks,
    logs::{self, access::AccessLog},
    refusal::Refusal,
    reload::{Ask, Watch, Watcher},
    signal_handlers,
};

/// How long `worker_abort` may take before the worker may be left.
const A_MOMENT: Duration = Duration::from_millis(500);

/// Serves until ordered to end. The exit status of the worker.
pub(crate) fn work(py: Python<'_>, house: &mut House<'_>, worker: Worker) -> Result<i32, Refusal> {
    let hooks = house.hooks.clone();
    let failed = |error| Refusal::raised(py, "a function of the config file failed", &error);
    hooks.as_ref().map_or(Ok(()), |hooks| hooks.call(py, "born", ())).map_err(failed)?;
    let wsgi = house.wsgi(py)?;
    let loaded = |hooks: &Arc<Hooks>| hooks.call(py, "loaded", (wsgi.application(),));
    hooks.as_ref().map_or(Ok(()), loaded).map_err(failed)?;
    let cannot = |error| Refusal::System(format!("this worker cannot serve: {error}"));
    let voice = worker.voice().map_err(cannot)?;
    signal_handlers::reclaim_term(py);
    house.settle(py);
    let watch = house.watch.take().filter(|_| worker.number == 0);
    let watcher =
        watch.map(|watch| start_watcher(py, watch, &worker, house.flags.running.fork)).transpose()?;
    let listeners = std::mem::take(&mut house.sockets.listeners);
    let shares = Some((Arc::clone(&house.shares), worker.number));
    let handover = house.handover.clone();
    let settings = mlws_server::Settings { shares, handover, ..house.server() };
    let overdue = hooks.clone();
    let hearer = Hearer { worker, watcher, access: house.access.clone(), hooks };
    let hearer = Arc::new(Mutex::new(hearer));
    let ready = Arc::clone(&hearer);
    let server = Server::new(listeners, settings, wsgi).on_notice(Box::new(move |notice| match notice {
        Notice::Serving => ready.lock().unwrap_or_else(PoisonError::into_inner).worker.ready(),
        Notice::Worn => voice.is_worn(),
        Notice::Overdue => {
            voice.is_worn();
            if let Some(hooks) = &overdue {
                tell_of_abort(hooks);
            }
        }
    }));
    match obey(server, &hearer).and_then(Server::run).map_err(cannot)? {
        Ended::Finished => Ok(signal_handlers::exit_status(py)),
        Ended::Stuck => {
            flush_python(py);
            leave_stuck()
        }
    }
}

/// Whoever hears of a call that takes too long must not wait for ever for the lock that it may hold: the function runs in a thread of
/// its own, and has a moment before the process may be left.
fn tell_of_abort(hooks: &Arc<Hooks>) {
    let hooks = Arc::clone(hooks);
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    let told = std::thread::Builder::new().spawn(move || {
        Python::attach(|py| hooks.tell(py, "overdue", ()));
        drop(ends);
    });
    match told {
        Ok(_) => drop(ended.recv_timeout(A_MOMENT)),
        Err(error) => log::error!("worker_abort could not be called: {error}"),
    }
}

/// In a worker that forks, the watcher is a process, for there must be one thread only.
fn start_watcher(py: Python<'_>, watch: Watch, worker: &Worker, fork: bool) -> Result<Watcher, Refusal> {
    let voice = worker.voice().map_err(|error| Refusal::System(format!("--reload cannot work: {error}")))?;
    let ask: Ask = Box::new(move || voice.asks_for_reload());
    let started = if fork { watch.in_process(py, &ask) } else { watch.in_thread(ask) };
    started.map_err(|error| Refusal::raised(py, "the files of the application cannot be watched", &error))
}

/// Who hears the orders of the master.
struct Hearer {
    worker: Worker,
    watcher: Option<Watcher>,
    access: Option<Arc<AccessLog>>,
    hooks: Option<Arc<Hooks>>,
}

impl Hearer {
    /// Carries out what is no business of the server's.
    fn next_order(&mut self) -> Option<mlws_server::Order> {
        loop {
            let order = match self.worker.next_order()? {
                Order::Reopen => {
                    logs::reopen(self.access.as_deref());
                    continue;
                }
                Order::OneMore | Order::OneFewer => continue, // for a master
                Order::HandOver => {
                    signal_handlers::drain_begins();
                    mlws_server::Order::HandOver
                }
                Order::Drain => {
                    signal_handlers::drain_begins();
                    mlws_server::Order::Drain
                }
                Order::Stop => {
                    if let Some(hooks) = self.hooks.take() {
                        Python::attach(|py| hooks.tell(py, "interrupted", ()));
                    }
                    mlws_server::Order::Stop
                }
            };
            self.watcher = None; // whoever is told to end is not to be replaced because of a change
            return Some(order);
        }
    }
}

/// Orders show on two descriptors, and either may be the one that has news.
fn obey(mut server: Server, hearer: &Arc<Mutex<Hearer>>) -> io::Result<Server> {
    let mut descriptors = Vec::new();
    for descriptor in hearer.lock().unwrap_or_else(PoisonError::into_inner).worker.orders() {
        descriptors.push(descriptor.try_clone_to_owned()?);
    }
    for descriptor in descriptors {
        let hearer = Arc::clone(hearer);
        let next = move || hearer.lock().unwrap_or_else(PoisonError::into_inner).next_order();
        server = server.watch(descriptor, Box::new(next));
    }
    Ok(server)
}
