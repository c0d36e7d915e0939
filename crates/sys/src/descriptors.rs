use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::io::{FdFlags, fcntl_setfd};

/// Takes ownership of a descriptor that this process inherited, once.
///
/// # Errors
///
/// If the descriptor is not open, is stdin, stdout or stderr, was opened by this process, or has been taken before. All
/// descriptors that this process and Python open have close-on-exec set, and so do those that this function has
/// returned. Inherited ones do not.
pub fn from_inherited_fd(descriptor: RawFd) -> io::Result<OwnedFd> {
    if (0..=2).contains(&descriptor) {
        return Err(io::Error::other("stdin, stdout and stderr cannot be used as sockets"));
    }
    // SAFETY: fcntl(2) fails for a number that is not an open descriptor.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::other("it was not inherited, or is in use already"));
    }
    // SAFETY: it is open and was inherited, as close-on-exec is not set, so nothing else in this process owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC)?;
    Ok(owned)
}

/// Closes a descriptor of which a forked child has a copy.
///
/// # Safety
///
/// The child must neither use nor drop the descriptor's owner afterwards. It exits by [`exit_now`](crate::exit_now),
/// which drops nothing.
pub unsafe fn close_inherited(descriptor: RawFd) {
    // SAFETY: the caller's contract.
    unsafe { libc::close(descriptor) };
}

/// Makes `descriptor` refer to what `other` refers to.
///
/// # Errors
///
/// Those of dup2(2).
pub fn replace_descriptor(descriptor: &OwnedFd, other: impl AsFd) -> io::Result<()> {
    // SAFETY: both are open, and the first has its owner and stays open.
    if unsafe { libc::dup2(other.as_fd().as_raw_fd(), descriptor.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fcntl_setfd(descriptor, FdFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn an_inherited_descriptor_is_taken_once() {
        let own = std::fs::File::open("/dev/null").unwrap();
        assert!(from_inherited_fd(own.as_raw_fd()).is_err());
        fcntl_setfd(&own, FdFlags::empty()).unwrap(); // as if it were inherited
        let number = own.into_raw_fd();
        let taken = from_inherited_fd(number).unwrap();
        assert!(from_inherited_fd(number).is_err());
        drop(taken);
        assert!(from_inherited_fd(1).is_err() && from_inherited_fd(-1).is_err());
    }
}
