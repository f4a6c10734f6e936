//! What the agent does with signals, as far as programs would inherit it.

use std::ptr;

use nix::libc;

/// The C library's own signal for ending threads. Whoever starts a program by `posix_spawn` of that library leaves it ignored, as
/// the program of the initramfs does with the agent, and what is ignored stays so in all that the agent starts.
const ENDS_THREADS: libc::c_int = 32;

/// Makes that signal what it is in a program that an init has started.
#[allow(unsafe_code)]
pub(crate) fn forget_inherited() {
    /// `struct sigaction` of the kernel: the library's own functions refuse this signal.
    #[repr(C)]
    struct Action {
        handler: libc::sighandler_t,
        flags: libc::c_ulong,
        restorer: usize,
        mask: u64,
    }
    let default = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: rt_sigaction reads one structure, which is there and laid out as the kernel has it, with a mask of the size that is
    // told; no old action is asked for. No handler is installed, so none can run.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            ENDS_THREADS,
            &raw const default,
            ptr::null_mut::<Action>(),
            size_of::<u64>(),
        );
    }
}
