//! Safe functions around parts of Python's C API that pyo3 does not offer.
//!
//! Invariant: functions that need a thread attached to the interpreter take a `Python` token or attach themselves.

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

/// Prepares the interpreter for a fork. The caller stays attached until one of the two functions below has run.
pub fn before_fork() {
    // SAFETY: the thread is attached.
    Python::attach(|_| unsafe { ffi::PyOS_BeforeFork() });
}

/// Ends [`before_fork`] in the parent.
pub fn after_fork_in_parent() {
    // SAFETY: the thread is attached, and ran `before_fork`.
    Python::attach(|_| unsafe { ffi::PyOS_AfterFork_Parent() });
}

/// Restores the interpreter in the child, which has the forking thread only.
pub fn after_fork_in_child() {
    // SAFETY: the thread is attached, ran `before_fork`, and is alone in its process.
    Python::attach(|_| unsafe { ffi::PyOS_AfterFork_Child() });
}

/// A counter that each forked child increments, from the first call on. So it differs between a process and its children.
pub fn forks() -> u64 {
    static FORKS: AtomicU64 = AtomicU64::new(0);
    static COUNTING: Once = Once::new();
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    COUNTING.call_once(|| {
        // SAFETY: the handler only increments an atomic counter, and this library is never unloaded.
        let failed = unsafe { libc::pthread_atfork(None, None, Some(count)) } != 0;
        if failed {
            log::warn!("detecting processes forked by the application failed: out of memory");
        }
    });
    FORKS.load(Ordering::Relaxed)
}

/// Writes the Python stacks of all threads to the log if `faulthandler` handles the signal. Needs no lock of the interpreter, so it works
/// while a thread holds the GIL. The stacks of running threads may be inaccurate.
pub fn show_stacks() {
    // SAFETY: faulthandler's handler is async-signal-safe. Without a handler the signal is ignored.
    unsafe { libc::raise(libc::SIGURG) };
}

/// Makes the main thread call `function` between two bytecodes, as soon as it runs Python code. Any thread may call this, attached or not.
/// Returns false if the queue of pending calls is full.
pub fn call_on_main_thread(function: fn(Python<'_>)) -> bool {
    extern "C" fn call(function: *mut c_void) -> c_int {
        // SAFETY: the pointer was made from such a function, below.
        let function: fn(Python<'_>) = unsafe { std::mem::transmute(function) };
        // A panic must not unwind into C. The panic hook has logged it.
        let _ = catch_unwind(|| Python::attach(function));
        0
    }
    // SAFETY: the call needs no GIL, and a function pointer is always valid.
    unsafe { ffi::Py_AddPendingCall(Some(call), function as *mut c_void) == 0 }
}

/// Decodes latin-1 (PEP 3333, "Unicode Issues").
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = bytes.len().cast_signed();
    // SAFETY: pointer and length are those of a live slice; the result is a new `str`, or null with an exception set.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// Encodes latin-1 without a copy. `None` if a character is not in latin-1.
pub fn latin1_bytes<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Option<&'a [u8]>> {
    // SAFETY: a `str` is immutable once other code has a reference, and `text` keeps it alive.
    match unsafe { text.data() }? {
        PyStringData::Ucs1(bytes) => Ok(Some(bytes)),
        PyStringData::Ucs2(_) | PyStringData::Ucs4(_) => Ok(None),
    }
}

/// A `bytes` of at most `wanted` bytes. Calls `read` until it is full or `read` adds nothing. Allocates `first` bytes, then doubles.
pub fn fill_bytes(
    py: Python<'_>,
    wanted: usize,
    first: usize,
    mut read: impl FnMut(&mut ReadBuffer<'_>) -> PyResult<()>,
) -> PyResult<Bound<'_, PyBytes>> {
    let mut bytes = BytesBuilder::new(wanted.min(first))?;
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

/// A `bytes` under construction, without other references.
struct BytesBuilder {
    /// The only reference. Null if allocating or resizing failed.
    object: *mut ffi::PyObject,
    capacity: usize,
    filled: usize,
}

impl BytesBuilder {
    /// The thread must be attached and stay attached, except during `read` of [`fill`](Self::fill).
    fn new(capacity: usize) -> PyResult<Self> {
        // SAFETY: the thread is attached. Without a pointer to copy from, the bytes are left uninitialized.
        let object =
            unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), capacity.max(1).cast_signed()) };
        let this = Self { object, capacity: capacity.max(1), filled: 0 };
        this.check().map(|()| this)
    }

    fn fill(&mut self, read: &mut impl FnMut(&mut ReadBuffer<'_>) -> PyResult<()>) -> PyResult<usize> {
        // SAFETY: the object has `capacity` bytes, and there is no other reference.
        let rest = unsafe {
            let start = ffi::PyBytes_AsString(self.object).cast::<MaybeUninit<u8>>();
            std::slice::from_raw_parts_mut(start.add(self.filled), self.capacity - self.filled)
        };
        let start = rest.as_ptr();
        let mut buffer = ReadBuffer::new(rest);
        read(&mut buffer)?;
        assert!(std::ptr::eq(buffer.filled().as_ptr().cast(), start), "the buffer was replaced");
        let count = buffer.filled().len();
        self.filled += count;
        Ok(count)
    }

    fn resize(&mut self, capacity: usize) -> PyResult<()> {
        if capacity != self.capacity {
            // SAFETY: the thread is attached, and this is the only reference. A failing call sets it to null.
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
        // SAFETY: an owned reference to a `bytes` that is initialized completely.
        unsafe { Ok(Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked()) }
    }
}

impl Drop for BytesBuilder {
    fn drop(&mut self) {
        // SAFETY: the thread is attached, and the reference is owned or null.
        unsafe { ffi::Py_XDECREF(self.object) };
    }
}

/// Whether the type has `__len__`. Cheaper than a `len()` that raises.
pub fn has_length(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: an object keeps its type alive, and a type its slot tables.
    unsafe {
        let class = &*ffi::Py_TYPE(object.as_ptr());
        class.tp_as_sequence.as_ref().is_some_and(|slots| slots.sq_length.is_some())
            || class.tp_as_mapping.as_ref().is_some_and(|slots| slots.mp_length.is_some())
    }
}

/// Whether this is the iterator of a list, so that taking the items runs no Python code.
pub fn is_list_iterator(iterator: &Bound<'_, PyAny>) -> bool {
    // SAFETY: the object is alive. Only the address of the iterator type is used.
    unsafe { ffi::Py_TYPE(iterator.as_ptr()) == &raw mut ffi::PyListIter_Type }
}

/// Whether the caller has the only reference. Reliable only with a GIL.
pub fn is_sole_reference<T>(py: Python<'_>, object: &Py<T>) -> bool {
    // SAFETY: the object is alive, and the thread attached.
    unsafe { ffi::Py_REFCNT(object.bind(py).as_ptr()) == 1 }
}

/// Whether this thread is attached to the interpreter.
pub fn is_attached() -> bool {
    // SAFETY: it only reads the state of the calling thread, and needs no interpreter.
    unsafe { ffi::PyGILState_Check() == 1 }
}

/// Runs `run` in a copy of the calling thread's context (PEP 567), and leaves the context even after a panic. Without memory for a copy,
/// runs in the thread's own context.
pub fn in_own_context(py: Python<'_>, run: &mut dyn FnMut()) {
    struct Entered<'py>(Bound<'py, PyAny>);

    impl Drop for Entered<'_> {
        fn drop(&mut self) {
            // SAFETY: the thread is attached, and entered this context last.
            if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } < 0 {
                PyErr::take(self.0.py());
                log::error!("leaving the context of a request failed");
            }
        }
    }

    // SAFETY: the thread is attached; the result is a new context, or null with an exception set.
    let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) };
    let entered = context.and_then(|context| {
        // SAFETY: the thread is attached, and the new context is not entered.
        match unsafe { ffi::PyContext_Enter(context.as_ptr()) } {
            0 => Ok(Entered(context)),
            _ => Err(PyErr::fetch(py)),
        }
    });
    if let Err(error) = &entered {
        log::error!("creating a context for a request failed: {error}");
    }
    run();
}

/// Duplicates a descriptor of Python code.
pub fn duplicate(_py: Python<'_>, descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is not -1 and borrowed only for the call, which fails if it is closed.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

/// A `&mut T` that Python objects can use while [`ScopedRef::scope`] runs, although they outlive any borrow. Outside of a scope they have
/// no access. The same lock guards a state `S`.
pub struct ScopedRef<S, T>(Mutex<Inner<S, T>>);

struct Inner<S, T> {
    state: S,
    value: Option<NonNull<T>>,
}

// SAFETY: the pointer represents a `&mut T`, which is `Send` if `T` is.
unsafe impl<S: Send, T: Send> Send for Inner<S, T> {}

impl<S: Default, T> Default for ScopedRef<S, T> {
    fn default() -> Self {
        Self(Mutex::new(Inner { state: S::default(), value: None }))
    }
}

impl<S: Default, T> ScopedRef<S, T> {
    /// Gives access to `value` and `state` while `during` runs. Returns the state afterwards.
    pub fn scope<R>(&self, py: Python<'_>, value: &mut T, state: S, during: impl FnOnce() -> R) -> (R, S) {
        *self.lock(py) = Inner { state, value: Some(NonNull::from(value)) };
        let guard = ScopeGuard { scoped: self, py };
        let result = during();
        (result, guard.finish())
    }

    /// Uses the state, and the value if a scope is active. `work` must not run Python code, which could call this again while the lock is
    /// held. It may detach.
    pub fn with<R>(&self, py: Python<'_>, work: impl FnOnce(&mut S, Option<&mut T>) -> R) -> R {
        let mut inner = self.lock(py);
        let Inner { state, value } = &mut *inner;
        // SAFETY: `scope` has the `&mut T` and does not use it before it has removed the pointer under this lock. So the reference created
        // here is valid and the only one.
        work(state, value.map(|mut value| unsafe { value.as_mut() }))
    }

    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Inner<S, T>> {
        self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a scope, also after a panic.
struct ScopeGuard<'a, 'py, S: Default, T> {
    scoped: &'a ScopedRef<S, T>,
    py: Python<'py>,
}

impl<S: Default, T> ScopeGuard<'_, '_, S, T> {
    fn finish(self) -> S {
        let state = self.end();
        std::mem::forget(self);
        state
    }

    fn end(&self) -> S {
        std::mem::replace(&mut *self.scoped.lock(self.py), Inner { state: S::default(), value: None }).state
    }
}

impl<S: Default, T> Drop for ScopeGuard<'_, '_, S, T> {
    fn drop(&mut self) {
        self.end();
    }
}
