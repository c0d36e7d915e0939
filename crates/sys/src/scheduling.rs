/// Sets the scheduling policy `SCHED_BATCH`: when this thread wakes, it does not preempt another. Threads and processes
/// that it starts have the default policy.
#[cfg(target_os = "linux")]
pub fn use_sched_batch() {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: zero is the calling thread, and the priority is only read during the call. A failure costs nothing but
    // time.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK, &raw const priority)
    };
}

#[cfg(not(target_os = "linux"))]
pub fn use_sched_batch() {}
