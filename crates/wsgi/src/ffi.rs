//! The unsafe part of the Python floor: what pyo3's safe API does not offer, each piece behind a safe function.
//!
//! The one thing to know: all of it needs the thread attached to the interpreter, and takes the proof for it. The brackets of a fork
//! attach by themselves, for who calls them knows no Python, and signals need no interpreter.

#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_void},
    io,
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    panic::catch_unwind,
    ptr::NonNull,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mlws_server::ReadBuffer;
use pyo3::{
    ffi,
    prelude::*,
    sync::MutexExt,
    types::{PyBytes, PyString, string::PyStringData},
};

/// Python's own preparation for a fork. The thread is attached before, and stays so until one of the other two brackets has run.
pub fn before_fork() {
    // SAFETY: the thread is attached.
    Python::attach(|_| unsafe { ffi::PyOS_BeforeFork() });
}

/// Undoes [`before_fork`] in the parent.
pub fn after_fork_in_parent() {
    // SAFETY: the thread is attached, and ran `before_fork`.
    Python::attach(|_| unsafe { ffi::PyOS_AfterFork_Parent() });
}

/// Makes the interpreter whole in the child, where only the forking thread lives on.
pub fn after_fork_in_child() {
    // SAFETY: the thread is attached, ran `before_fork`, and is alone in its process.
    Python::attach(|_| unsafe { ffi::PyOS_AfterFork_Child() });
}

/// How often this process was forked, counting from when this was asked for the first time: a process that forks keeps its number, the one
/// that is forked has a higher one.
pub fn forks() -> u64 {
    static FORKS: AtomicU64 = AtomicU64::new(0);
    static COUNTING: Once = Once::new();
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    COUNTING.call_once(|| {
        // SAFETY: the handler only adds to a number, which may be done at any time, and lives as long as this library.
        let failed = unsafe { libc::pthread_atfork(None, None, Some(count)) } != 0;
        if failed {
            log::warn!("no memory to detect processes that the application forks");
        }
    });
    FORKS.load(Ordering::Relaxed)
}

/// Writes the Python stacks of all threads to stderr, if `faulthandler` listens to the signal (see `stacks`). Needs no lock of Python's,
/// so it works where a thread keeps them; the stacks of running threads may be a little off.
pub fn show_stacks() {
    // SAFETY: the handler is faulthandler's, made to run at any time; without one the signal is ignored.
    unsafe { libc::raise(libc::SIGURG) };
}

/// Has the main thread call `function`, between two bytecodes, as soon as it runs Python code. Any thread may ask for it, attached
/// or not. False if too many calls are pending already.
pub fn call_on_main_thread(function: fn(Python<'_>)) -> bool {
    extern "C" fn call(function: *mut c_void) -> c_int {
        // SAFETY: the pointer was made from such a function, below.
        let function: fn(Python<'_>) = unsafe { std::mem::transmute(function) };
        // An unwinding must not cross into C; the panic hook has logged it.
        let _ = catch_unwind(|| Python::attach(function));
        0
    }
    // SAFETY: the call needs no GIL, and a function outlives everything.
    unsafe { ffi::Py_AddPendingCall(Some(call), function as *mut c_void) == 0 }
}

/// The `str` of these bytes, each a code point of its own (latin-1, PEP 3333 "Unicode Issues").
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = bytes.len().cast_signed();
    // SAFETY: pointer and length are those of a live slice; the result is a new `str`, or null with an exception set.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// The reverse of [`latin1`], without a copy; nothing where a character is beyond latin-1.
pub fn latin1_bytes<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Option<&'a [u8]>> {
    // SAFETY: nobody writes into a `str` that other code has seen, and `text` keeps it alive.
    match unsafe { text.data() }? {
        PyStringData::Ucs1(bytes) => Ok(Some(bytes)),
        PyStringData::Ucs2(_) | PyStringData::Ucs4(_) => Ok(None),
    }
}

/// A `bytes` of at most `wanted` bytes: `read` is called until it is full, or until `read` adds nothing. At first it takes memory for
/// `first` bytes, and twice as much each time that is full.
pub fn fill_bytes(
    py: Python<'_>,
    wanted: usize,
    first: usize,
    mut read: impl FnMut(&mut ReadBuffer<'_>) -> PyResult<()>,
) -> PyResult<Bound<'_, PyBytes>> {
    let mut bytes = Unfinished::new(wanted.min(first))?;
    while bytes.filled < wanted {
        if bytes.filled == bytes.capacity {
            bytes.resize(wanted.min(bytes.capacity.saturating_mul(2)))?;
        }
        if bytes.fill(&mut read)? == 0 {
            break;
        }
    }
    bytes.resize(bytes.filled)?;
    bytes.finish(py)
}

unsafe extern "C" {
    /// Part of Python's C API, but not of pyo3's.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// A `bytes` that no other code has seen.
struct Unfinished {
    /// The only reference to it. Null where making or resizing it failed.
    object: *mut ffi::PyObject,
    capacity: usize,
    filled: usize,
}

impl Unfinished {
    /// The thread must be attached, and stay so except within `read` of [`fill`](Self::fill).
    fn new(capacity: usize) -> PyResult<Self> {
        // SAFETY: the thread is attached. Without a pointer to copy from, the bytes are left uninitialized.
        let object =
            unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), capacity.max(1).cast_signed()) };
        let this = Self { object, capacity: capacity.max(1), filled: 0 };
        this.check().map(|()| this)
    }

    fn fill(&mut self, read: &mut impl FnMut(&mut ReadBuffer<'_>) -> PyResult<()>) -> PyResult<usize> {
        // SAFETY: the object has room for `capacity` bytes, and nobody else refers to it.
        let rest = unsafe {
            let start = ffi::PyBytes_AsString(self.object).cast::<MaybeUninit<u8>>();
            std::slice::from_raw_parts_mut(start.add(self.filled), self.capacity - self.filled)
        };
        let start = rest.as_ptr();
        let mut buffer = ReadBuffer::new(rest);
        read(&mut buffer)?;
        assert!(std::ptr::eq(buffer.filled().as_ptr().cast(), start), "the buffer was exchanged");
        let count = buffer.filled().len();
        self.filled += count;
        Ok(count)
    }

    fn resize(&mut self, capacity: usize) -> PyResult<()> {
        if capacity != self.capacity {
            // SAFETY: the thread is attached, and this is the only reference; it is set to null if the call fails.
            unsafe { _PyBytes_Resize(&raw mut self.object, capacity.cast_signed()) };
            self.capacity = capacity;
        }
        self.check()
    }

    fn check(&self) -> PyResult<()> {
        if self.object.is_null() { Err(Python::attach(PyErr::fetch)) } else { Ok(()) }
    }

    fn finish(mut self, py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
        let object = std::mem::replace(&mut self.object, std::ptr::null_mut());
        // SAFETY: a reference that we own, to a `bytes` all of which is initialized.
        unsafe { Ok(Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked()) }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // SAFETY: the thread is attached, and the reference ours, or null.
        unsafe { ffi::Py_XDECREF(self.object) };
    }
}

/// Whether `len(object)` can be asked, without the exception that asking in vain would cost.
pub fn has_length(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: an object keeps its type alive, and a type its tables of slots.
    unsafe {
        let class = &*ffi::Py_TYPE(object.as_ptr());
        class.tp_as_sequence.as_ref().is_some_and(|slots| slots.sq_length.is_some())
            || class.tp_as_mapping.as_ref().is_some_and(|slots| slots.mp_length.is_some())
    }
}

/// Whether this is the iterator of a plain list: what it will give is there, and taking it runs no Python code.
pub fn is_list_iterator(iterator: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the object is alive; of the iterator's type only the address is taken.
    unsafe { ffi::Py_TYPE(iterator.as_ptr()) == &raw mut ffi::PyListIter_Type }
}

/// Whether the caller's is the only reference. Only true where one thread runs at a time (under a GIL).
pub fn is_sole_reference<T>(py: Python<'_>, object: &Py<T>) -> bool {
    // SAFETY: the object is alive, and the thread attached.
    unsafe { ffi::Py_REFCNT(object.bind(py).as_ptr()) == 1 }
}

/// Whether this thread is attached to the interpreter, so that it can use it without waiting.
pub fn is_attached() -> bool {
    // SAFETY: it only looks at the state of the calling thread, and works in any, also where there is no interpreter.
    unsafe { ffi::PyGILState_Check() == 1 }
}

/// Runs `run` in a copy of the calling thread's context (PEP 567), also if it panics. Where Python has no memory for a context, in
/// the thread's own.
pub fn in_own_context(py: Python<'_>, run: &mut dyn FnMut()) {
    struct Entered<'py>(Bound<'py, PyAny>);

    impl Drop for Entered<'_> {
        fn drop(&mut self) {
            // SAFETY: the thread is attached, and this context is the one that it entered last.
            if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } < 0 {
                PyErr::take(self.0.py());
                log::error!("leaving the context of a request failed");
            }
        }
    }

    // SAFETY: the thread is attached; the result is a new context, or null with an exception set.
    let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) };
    let entered = context.and_then(|context| {
        // SAFETY: the thread is attached, and the context is new, so nobody has entered it.
        match unsafe { ffi::PyContext_Enter(context.as_ptr()) } {
            0 => Ok(Entered(context)),
            _ => Err(PyErr::fetch(py)),
        }
    });
    if let Err(error) = &entered {
        log::error!("making a context for a request failed: {error}");
    }
    run();
}

/// A descriptor of our own for the file behind one that Python code holds.
pub fn duplicate(_py: Python<'_>, descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is not -1, and borrowed only for the call; should it be closed, the system says so.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

/// A `&mut T` on loan to Python objects, which outlive any borrow: they reach it while [`ScopedRef::scope`] runs, and find nothing
/// before and after. Beside it a state `S`, for one lock guards both.
pub struct ScopedRef<S, T>(Mutex<Inner<S, T>>);

struct Inner<S, T> {
    state: S,
    value: Option<NonNull<T>>,
}

// SAFETY: the pointer stands for a `&mut T`, which may go to another thread if `T` may.
unsafe impl<S: Send, T: Send> Send for Inner<S, T> {}

impl<S: Default, T> ScopedRef<S, T> {
    pub fn new() -> Self {
        Self(Mutex::new(Inner { state: S::default(), value: None }))
    }

    /// Lends `value`, with `state` beside it, while `during` runs; returns the state that it left.
    pub fn scope<R>(&self, py: Python<'_>, value: &mut T, state: S, during: impl FnOnce() -> R) -> (R, S) {
        *self.lock(py) = Inner { state, value: Some(NonNull::from(value)) };
        let debt = ScopeGuard { loan: self, py };
        let result = during();
        (result, debt.finish())
    }

    /// Works on the state, and on the value while it is lent. `work` must not run Python code while attached (it could come back
    /// here); it may detach.
    pub fn with<R>(&self, py: Python<'_>, work: impl FnOnce(&mut S, Option<&mut T>) -> R) -> R {
        let mut lent = self.lock(py);
        let Inner { state, value } = &mut *lent;
        // SAFETY: `scope` holds the `&mut T` and does not touch it until it has taken the pointer back under this lock, so the
        // reference made here is alive and the only one.
        work(state, value.map(|mut value| unsafe { value.as_mut() }))
    }

    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Inner<S, T>> {
        self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ends a loan, also where a panic does.
struct ScopeGuard<'a, 'py, S: Default, T> {
    loan: &'a ScopedRef<S, T>,
    py: Python<'py>,
}

impl<S: Default, T> ScopeGuard<'_, '_, S, T> {
    fn finish(self) -> S {
        let state = self.end();
        std::mem::forget(self);
        state
    }

    fn end(&self) -> S {
        std::mem::replace(&mut *self.loan.lock(self.py), Inner { state: S::default(), value: None }).state
    }
}

impl<S: Default, T> Drop for ScopeGuard<'_, '_, S, T> {
    fn drop(&mut self) {
        self.end();
    }
}
