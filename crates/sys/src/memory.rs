use std::mem::MaybeUninit;

use rustix::mm::Advice;

/// Asks for large pages for memory that has no pages yet: filling it takes one page fault per two megabytes then.
pub fn use_large_pages(memory: &mut [MaybeUninit<u8>]) {
    const PAGE: usize = 4096;
    let start = memory.as_mut_ptr().map_addr(|address| address.next_multiple_of(PAGE));
    let length = memory.as_ptr_range().end.addr().saturating_sub(start.addr()) / PAGE * PAGE;
    // SAFETY: whole pages within the caller's memory. The advice does not change their content.
    let _ = unsafe { rustix::mm::madvise(start.cast(), length, Advice::LinuxHugepage) };
}
