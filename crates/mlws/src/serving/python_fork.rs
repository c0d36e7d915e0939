use mlws_supervisor::ForkHooks;
use mlws_wsgi::ffi;

/// What Python needs around a fork.
pub(super) struct PythonFork;

impl ForkHooks for PythonFork {
    fn before(&self) {
        ffi::before_fork();
    }

    fn after_in_parent(&self) {
        ffi::after_fork_in_parent();
    }

    fn after_in_child(&self) {
        ffi::after_fork_in_child();
    }
}
