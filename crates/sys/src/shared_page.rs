use std::{
    io,
    sync::atomic::{AtomicU8, AtomicU64},
};

use rustix::mm::{MapFlags, ProtFlags};

/// What a [`SharedPage`] may contain.
///
/// # Safety
///
/// Any thread of any process may use the type at any time, and zero bytes are a valid value of it.
pub unsafe trait Atomic: Sync {}

// SAFETY: atomic numbers may be used by all threads and processes, and zero is a number.
unsafe impl Atomic for AtomicU8 {}
// SAFETY: as above.
unsafe impl Atomic for AtomicU64 {}

/// Numbers that parent and children share.
pub struct SharedPage<T> {
    start: *const T,
    count: usize,
}

// SAFETY: the memory contains atomic numbers and lives as long as this.
unsafe impl<T: Atomic> Send for SharedPage<T> {}
// SAFETY: as above.
unsafe impl<T: Atomic> Sync for SharedPage<T> {}

impl<T: Atomic> SharedPage<T> {
    /// Allocates `count` numbers, at least one, all zero.
    pub fn new(count: usize) -> io::Result<Self> {
        let count = count.max(1);
        let length = count.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh anonymous mapping, zeroed by the kernel. Zero is valid for an `Atomic`.
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

    /// The number at an index.
    pub fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: the mapping contains `count` numbers, is aligned to a page, and lives as long as `self`.
        (index < self.count).then(|| unsafe { &*self.start.add(index) })
    }
}

impl<T> Drop for SharedPage<T> {
    fn drop(&mut self) {
        // SAFETY: `new` created the mapping with this length, and no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.start.cast_mut().cast(), self.count * size_of::<T>()) };
    }
}

impl<T> std::fmt::Debug for SharedPage<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedPage({})", self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_page_has_as_many_numbers_as_requested() {
        let page = SharedPage::<AtomicU64>::new(1000).unwrap();
        page.get(999).unwrap().store(7, Ordering::Relaxed);
        assert_eq!(page.get(999).unwrap().load(Ordering::Relaxed), 7);
        assert!(page.get(1000).is_none());
        assert!(SharedPage::<AtomicU64>::new(usize::MAX / 4).is_err());
    }
}
