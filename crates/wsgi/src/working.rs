//! A worker: loads the application, serves, and does as it is ordered.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use mlws_server::{Ended, Notice, STUCK, Server};
use mlws_supervisor::{Order, Worker};
use pyo3::prelude::*;

use crate::{
    access::AccessLog,
    refusal::Refusal,
    serving::{House, flush_python},
};

/// Serves until ordered to end.
pub(crate) fn work(py: Python<'_>, house: &mut House<'_>, mut worker: Worker) -> Result<(), Refusal> {
    let wsgi = house.wsgi(py)?;
    let cannot = |error| Refusal::System(format!("this worker cannot serve: {error}"));
    let voice = worker.voice().map_err(cannot)?;
    worker.ready();
    let listeners = std::mem::take(&mut house.sockets.listeners);
    let shares = Some((Arc::clone(&house.shares), worker.number));
    let settings = mlws_server::Settings { shares, ..house.flags.server() };
    let server = Server::new(listeners, settings, wsgi).on_notice(Box::new(move |notice| match notice {
        Notice::Worn | Notice::Overdue => voice.is_worn(),
    }));
    match watch(server, worker, house.access.clone()).and_then(Server::run).map_err(cannot)? {
        Ended::Finished => Ok(()),
        Ended::Stuck => {
            log::error!("a thread is stuck in the application; this process is left without it");
            flush_python(py);
            mlws_server::leave(STUCK)
        }
    }
}

/// Orders show on two descriptors, and either may be the one that has news.
fn watch(mut server: Server, worker: Worker, access: Option<Arc<AccessLog>>) -> io::Result<Server> {
    let mut descriptors = Vec::new();
    for descriptor in worker.orders() {
        descriptors.push(descriptor.try_clone_to_owned()?);
    }
    let orders = Arc::new(Mutex::new((worker, access)));
    for descriptor in descriptors {
        let orders = Arc::clone(&orders);
        server = server.watch(
            descriptor,
            Box::new(move || {
                let (worker, access) = &mut *orders.lock().unwrap_or_else(PoisonError::into_inner);
                next_order(worker, access.as_deref())
            }),
        );
    }
    Ok(server)
}

/// Carries out what is no business of the server's.
fn next_order(worker: &mut Worker, access: Option<&AccessLog>) -> Option<mlws_server::Order> {
    loop {
        match worker.next_order()? {
            Order::Drain => return Some(mlws_server::Order::Drain),
            Order::Stop => return Some(mlws_server::Order::Stop),
            Order::Reopen => access.map_or((), AccessLog::reopen),
            Order::OneMore | Order::OneFewer => {} // for a master
        }
    }
}
