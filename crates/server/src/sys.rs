//! The few system calls that have no safe form: fork, leaving without exit handlers, waking politely, and a page shared with children,
//! memory that is read into before it was ever written.
//!
//! Everything unsafe of this crate stands here.
#![allow(unsafe_code)]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering},
};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Which side of a fork this is.
pub(crate) enum Forked {
    Parent(rustix::process::Pid),
    Child,
}

/// Forks this process. The caller has one thread; signals are held back until [`SignalsBlocked`] is dropped, so that the child can
/// put its own dispositions in place before one arrives.
pub(crate) fn fork() -> io::Result<(Forked, SignalsBlocked)> {
    let held = SignalsBlocked::new();
    // SAFETY: the process has one thread (the fork floor runs no others), so the child's state is whole.
    let pid = unsafe { libc::fork() };
    match rustix::process::Pid::from_raw(pid) {
        Some(_) if pid < 0 => Err(io::Error::last_os_error()),
        Some(pid) => Ok((Forked::Parent(pid), held)),
        None => Ok((Forked::Child, held)),
    }
}

/// Signals are held back while this lives.
pub(crate) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    fn new() -> Self {
        // SAFETY: both sets are plain memory that the calls fill in.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by the same call in `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// The process that answers one request, in that process; 0 in all others.
static REQUEST_PROCESS: AtomicI32 = AtomicI32::new(0);

/// Whether this process was forked to answer one request ([`Concurrency::Fork`](crate::Concurrency::Fork)). A process that the app
/// forks from it was not.
pub fn is_request_process() -> bool {
    REQUEST_PROCESS.load(Ordering::Relaxed) == rustix::process::getpid().as_raw_pid()
}

/// Ignores the signal in a request's process. This is a handler and not `SIG_IGN`, so that programs which the app starts get the
/// default disposition back at exec. A process that the app forks inherits the handler and gets the default action.
extern "C" fn ignore_in_request_process(signal: libc::c_int) {
    if !is_request_process() {
        // SAFETY: both are async-signal-safe. The signal is blocked here, so it acts on return.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

/// In a child that answers one request: signals that are often sent to the whole process group leave it to finish. Who stops the
/// server gracefully sends TERM to all processes; a terminal sends INT and QUIT. The parent decides when a child is killed.
/// Handlers of the parent write into pipes that the child shares, so none of them may stay.
pub(crate) fn install_child_signal_handlers(parent: rustix::process::Pid) {
    REQUEST_PROCESS.store(rustix::process::getpid().as_raw_pid(), Ordering::Relaxed);
    let ignore = ignore_in_request_process as extern "C" fn(libc::c_int);
    // SAFETY: the handler is async-signal-safe, and a program that the app starts gets the default back at exec.
    unsafe {
        // Nobody would bound the time of a child whose parent is gone.
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent.as_raw_nonzero().get() {
            leave(0); // it was gone before that could be asked for
        }
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2]
        {
            libc::signal(signal, ignore as libc::sighandler_t);
        }
    }
}

/// Leaves the process at once, without exit handlers: those of a child belong to its parent, and those of a process with a stuck
/// thread might wait for it.
pub fn leave(status: i32) -> ! {
    // SAFETY: `_exit` does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// Takes over a descriptor that this process was started with.
pub(crate) fn adopt(descriptor: RawFd) -> io::Result<OwnedFd> {
    if (0..=2).contains(&descriptor) {
        return Err(io::Error::other("stdin, stdout and stderr cannot be taken over"));
    }
    // SAFETY: asking for the flags of a number that is no open descriptor only gives an error.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::other("it was opened in this process, or is taken over already"));
    }
    // SAFETY: it is open, and was inherited: all that this process and Python open is closed on exec, and so is what was taken
    // over here before. So nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC)?;
    Ok(owned)
}

/// Closes a descriptor that this process only has a copy of.
pub(crate) fn close_inherited(descriptor: RawFd) {
    // SAFETY: only called in a child that leaves by `leave`, so no owner of the descriptor is ever dropped after this.
    unsafe { libc::close(descriptor) };
}

/// Makes this descriptor another name for what `other` stands for. Whoever uses it finds the other from now on.
pub(crate) fn replace_descriptor(descriptor: &OwnedFd, other: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: both are open, the first is owned by the caller and stays open throughout.
    if unsafe { libc::dup2(other.as_raw_fd(), descriptor.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?)
}

/// Asks for large pages where this memory has none yet: filling it then takes a fault for each two megabytes.
pub(crate) fn use_large_pages(memory: &mut [MaybeUninit<u8>]) {
    const PAGE: usize = 4096;
    let start = memory.as_mut_ptr().map_addr(|address| address.next_multiple_of(PAGE));
    let length = memory.as_ptr_range().end.addr().saturating_sub(start.addr()) / PAGE * PAGE;
    // SAFETY: whole pages within memory of the caller's; the advice changes nothing of what is in them.
    let _ = unsafe { rustix::mm::madvise(start.cast(), length, Advice::LinuxHugepage) };
}

/// When the calling thread wakes, it no longer interrupts another that runs. Threads and processes that it starts are as usual.
#[cfg(target_os = "linux")]
pub(crate) fn use_sched_batch() {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: zero is the calling thread, and the priority is read during the call only. Where it is refused, nothing is lost but time.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK, &raw const priority)
    };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn use_sched_batch() {}

/// What a [`SharedPage`] may hold.
///
/// # Safety
/// Any thread of any process may use it at any time, and zero bytes are a valid one.
pub unsafe trait Atomic: Sync {}

// SAFETY: so says its documentation.
unsafe impl Atomic for AtomicU8 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU64 {}

/// Numbers that parent and children see alike.
pub struct SharedPage<T> {
    start: *const T,
    count: usize,
}

// SAFETY: the memory is atomic numbers that live as long as this.
unsafe impl<T: Atomic> Send for SharedPage<T> {}
// SAFETY: as above.
unsafe impl<T: Atomic> Sync for SharedPage<T> {}

impl<T: Atomic> SharedPage<T> {
    /// So many of them, all zero. One at least.
    pub fn new(count: usize) -> io::Result<Self> {
        let count = count.max(1);
        let length = count.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh anonymous mapping, zeroed by the system; zero is valid for an Atomic.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )?
        };
        Ok(Self { start: start.cast(), count })
    }

    /// The number at an index, if there is one.
    pub fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: the mapping holds `count` of them, aligned as a page is, and lives as long as `self`.
        (index < self.count).then(|| unsafe { &*self.start.add(index) })
    }
}

impl<T> Drop for SharedPage<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.start.cast_mut().cast(), self.count * size_of::<T>()) };
    }
}

impl<T> std::fmt::Debug for SharedPage<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedPage({})", self.count)
    }
}

/// A borrowed buffer and how much of it is filled, as `std::io::BorrowedBuf` will be once it is stable.
///
/// Invariant: the first `filled` bytes are initialized.
pub struct ReadBuffer<'a> {
    bytes: &'a mut [MaybeUninit<u8>],
    filled: usize,
}

impl<'a> ReadBuffer<'a> {
    /// Nothing of it is filled yet.
    pub fn new(bytes: &'a mut [MaybeUninit<u8>]) -> Self {
        Self { bytes, filled: 0 }
    }

    /// What was read so far.
    pub fn filled(&self) -> &[u8] {
        // SAFETY: the invariant.
        unsafe { &*(&raw const self.bytes[..self.filled] as *const [u8]) }
    }

    /// How many bytes still fit.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.filled
    }

    /// Copies as much of `from` as fits, and returns how much that was.
    pub(crate) fn append(&mut self, from: &[u8]) -> usize {
        let count = from.len().min(self.remaining());
        for (to, from) in self.bytes[self.filled..].iter_mut().zip(&from[..count]) {
            to.write(*from);
        }
        self.filled += count;
        count
    }

    /// One system call: reads at most `limit` bytes from a descriptor. Zero is the end of the input, where something fits.
    pub(crate) fn read_from(&mut self, descriptor: impl AsFd, limit: usize) -> io::Result<usize> {
        let end = self.bytes.len().min(self.filled.saturating_add(limit));
        let (read, _) = rustix::io::read(descriptor, &mut self.bytes[self.filled..end])?;
        let count = read.len();
        self.filled += count;
        Ok(count)
    }
}

/// Appends to a vector what `read` puts into at most `limit` bytes behind its end.
pub(crate) fn append_to<R>(
    vector: &mut Vec<u8>,
    limit: usize,
    read: impl FnOnce(&mut ReadBuffer<'_>) -> R,
) -> R {
    vector.reserve(limit);
    let start = vector.len();
    let mut buffer = ReadBuffer::new(&mut vector.spare_capacity_mut()[..limit]);
    let first = buffer.bytes.as_ptr();
    let result = read(&mut buffer);
    assert!(std::ptr::eq(first, buffer.bytes.as_ptr()), "the buffer was exchanged");
    let filled = buffer.filled;
    // SAFETY: it is the same buffer, behind the vector's end and within its capacity, and so much of it is initialized.
    unsafe { vector.set_len(start + filled) };
    result
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn a_vector_grows_by_what_was_read_and_no_more() {
        let mut vector = b"ab".to_vec();
        let count = append_to(&mut vector, 3, |buffer| buffer.append(b"cdefg"));
        assert_eq!((count, vector.as_slice()), (3, &b"abcde"[..]));
        append_to(&mut vector, 10, |buffer| {
            buffer.append(b"f");
            buffer.append(b"g");
            assert_eq!((buffer.filled(), buffer.remaining()), (&b"fg"[..], 8));
        });
        assert_eq!(vector, b"abcdefg");
    }

    #[test]
    fn a_descriptor_is_read_up_to_the_limit() {
        let mut vector = Vec::new();
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        append_to(&mut vector, 100, |buffer| buffer.read_from(&zeros, 7)).unwrap();
        assert_eq!(vector, [0; 7]);
    }

    #[test]
    fn a_shared_page_is_as_long_as_it_was_made() {
        let page = SharedPage::<AtomicU64>::new(2).unwrap();
        assert!(page.get(1).is_some() && page.get(2).is_none() && page.get(usize::MAX).is_none());
        assert!(SharedPage::<AtomicU64>::new(usize::MAX / 4).is_err());
    }

    #[test]
    fn only_an_inherited_descriptor_is_taken_over_and_only_once() {
        let own = std::fs::File::open("/dev/null").unwrap();
        assert!(adopt(own.as_raw_fd()).is_err());
        rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::empty()).unwrap(); // as if it were inherited
        let number = own.into_raw_fd();
        let adopted = adopt(number).unwrap();
        assert!(adopt(number).is_err());
        drop(adopted);
        assert!(adopt(1).is_err() && adopt(-1).is_err());
    }
}
