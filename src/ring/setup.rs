//! Making a ring: what the kernel must have, what is used where it has it, and what the ring may
//! do afterwards.

use std::{env, io};

use io_uring::{IoUring, Probe, opcode, register, squeue, types};
use thiserror::Error;

use crate::kernel::BUFFER_BYTES;
use crate::sys;

use super::buffers::{Buffers, GROUP};

/// Features of kernels newer than the oldest supported one, as the start-up probe found them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A multishot receive can end after a number of bytes (6.17).
    pub bounded_recv: bool,
    /// The submission queue needs no index array (6.6).
    pub plain_queue: bool,
    /// A wait for completions need not count as I/O wait (6.15).
    pub no_iowait: bool,
    /// A socket can be limited to a range of local ports (6.3).
    pub port_range: bool,
    /// An accept can be made to end with its thread (6.7; it takes effect since 6.16, and since
    /// 6.12.33 in that series).
    pub prompt_close: bool,
}

impl Features {
    /// The features that this kernel lacks, each as a sentence: since when there is one, and what
    /// is worse without it.
    pub fn lacking(mut self) -> impl Iterator<Item = &'static str> {
        let table = self.table();
        let lacking = table.into_iter().filter(|(_, there, _)| !**there);
        lacking
            .map(|(_, _, sentence)| sentence)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Every feature by its name in [`WITHOUT`], with its sentence.
    fn table(&mut self) -> [(&'static str, &mut bool, &'static str); 5] {
        [
            (
                "bounded_recv",
                &mut self.bounded_recv,
                "before Linux 6.17 a receive has no bound: a fast sender in front of a slow reader \
                 may take all that its socket holds instead of 64 KiB",
            ),
            (
                "plain_queue",
                &mut self.plain_queue,
                "before Linux 6.6 the submission queue has an index array: each operation costs a \
                 little more",
            ),
            (
                "no_iowait",
                &mut self.no_iowait,
                "before Linux 6.15 an idle worker counts as I/O wait: tools show a busy disk where \
                 there is none",
            ),
            (
                "port_range",
                &mut self.port_range,
                "before Linux 6.3 `source_ports` does nothing: connections to backends begin at \
                 any local port",
            ),
            (
                "prompt_close",
                &mut self.prompt_close,
                "before Linux 6.7 the listeners of a killed balancer accept clients for about 10 \
                 ms more, and then reset them",
            ),
        ]
    }

    /// Switches off the features that a comma-separated list names.
    fn switch_off(&mut self, names: &str) -> Result<(), SetupError> {
        for name in names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            let mut table = self.table();
            let all: Vec<_> = table.iter().map(|(name, ..)| *name).collect();
            let found = table.iter_mut().find(|(known, ..)| *known == name);
            let Some((_, there, _)) = found else {
                return Err(SetupError::UnknownFeature {
                    name: name.to_owned(),
                    known: all.join(", "),
                });
            };
            **there = false;
        }
        Ok(())
    }
}

/// Why there is no ring. `main` prints the sentence and exits with 3.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Setup flags or operations of 6.1 are unknown.
    #[error(
        "this kernel ({release}) lacks {missing}: Mahoraga needs Linux 6.1 or later \
         with CONFIG_IO_URING"
    )]
    TooOld {
        /// The kernel's release, as uname(2) reports it.
        release: String,
        /// The flag or operation.
        missing: &'static str,
    },
    /// The system call does not exist.
    #[error(
        "io_uring_setup is not available: the kernel was built without CONFIG_IO_URING, or a \
         container's seccomp profile hides it; allow io_uring_setup, io_uring_enter and \
         io_uring_register in the profile (Docker: --security-opt seccomp=PROFILE)"
    )]
    Absent,
    /// Forbidden by sysctl.
    #[error(
        "io_uring is disabled on this machine (kernel.io_uring_disabled = {value}): allow it with \
         `sysctl -w kernel.io_uring_disabled=0`{group}"
    )]
    Disabled {
        /// The value of the sysctl, 1 or 2.
        value: u32,
        /// Another way to allow it, if there is one.
        group: &'static str,
    },
    /// Forbidden by something else.
    #[error(
        "io_uring_setup is not permitted: a container's seccomp profile or a security module \
         blocks it; allow io_uring_setup, io_uring_enter and io_uring_register \
         (Docker: --security-opt seccomp=PROFILE)"
    )]
    Forbidden,
    /// The memory of rings counts as locked before 5.12 and in some containers.
    #[error(
        "no memory for io_uring: raise the limit of locked memory (`ulimit -l`, systemd \
         LimitMEMLOCK=) or the container's memory limit"
    )]
    NoMemory,
    /// A name in `MAHORAGA_WITHOUT`.
    #[error("invalid feature `{name}` in {WITHOUT}: expected one of {known}")]
    UnknownFeature {
        /// The name.
        name: String,
        /// Every valid name.
        known: String,
    },
    /// Anything else.
    #[error("io_uring can't be set up: {0}")]
    Other(#[from] io::Error),
}

/// Checks once, before any thread is made, whether the kernel can do what workers need. The
/// features that `MAHORAGA_WITHOUT` names count as missing.
///
/// # Errors
/// [`SetupError`] names what is missing and how to allow it.
pub fn probe() -> Result<Features, SetupError> {
    let plain_queue = builder(true).build(8).is_ok();
    let ring = builder(plain_queue).build(8).map_err(explain)?;
    let mut found = Probe::new();
    ring.submitter().register_probe(&mut found)?;
    for (code, name) in OPERATIONS {
        if !found.is_supported(code) {
            return Err(too_old(name));
        }
    }
    if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_skip_cqe_on_success() {
        return Err(too_old(
            "timeouts of io_uring_enter and IOSQE_CQE_SKIP_SUCCESS",
        ));
    }
    let prompt_close = found.is_supported(opcode::FutexWait::CODE);
    let no_iowait = ring.params().is_feature_no_iowait();
    let bounded_recv = accepts_bounded_recv(ring)?;
    let mut features = Features {
        bounded_recv,
        plain_queue,
        no_iowait,
        port_range: sys::finds_port_range(),
        prompt_close,
    };
    features.switch_off(&env::var(WITHOUT).unwrap_or_default())?;
    if !features.port_range {
        sys::disable_port_range();
    }
    Ok(features)
}

/// A ring for the calling thread, restricted to what workers do, with its buffers.
pub(super) fn build(
    features: Features,
    submissions: u32,
    buffers: u16,
) -> Result<(IoUring, Buffers), SetupError> {
    let uring = builder(features.plain_queue)
        .build(submissions)
        .map_err(explain)?;
    let buffers = Buffers::register(&uring.submitter(), buffers).map_err(explain)?;
    let enabled =
        restrict(&uring, features).and_then(|()| uring.submitter().register_enable_rings());
    if let Err(error) = enabled {
        // The ring goes before what it points at.
        drop(uring);
        return Err(error.into());
    }
    Ok((uring, buffers))
}

/// From here on this ring can do nothing else (io_uring_register(2), IORING_REGISTER_RESTRICTIONS):
/// no file can be opened or read through it, whatever else goes wrong in this process.
fn restrict(uring: &IoUring, features: Features) -> io::Result<()> {
    let mut flags = squeue::Flags::BUFFER_SELECT | squeue::Flags::SKIP_SUCCESS;
    flags.set(squeue::Flags::IO_LINK, features.prompt_close);
    let futex = features.prompt_close.then_some(opcode::FutexWait::CODE);
    let operations = OPERATIONS.iter().map(|(code, _)| *code).chain(futex);
    let operations = operations.map(register::Restriction::sqe_op);
    let flags = register::Restriction::sqe_flags_allowed(flags.bits());
    let mut restrictions: Vec<_> = operations.chain([flags]).collect();
    uring.submitter().register_restrictions(&mut restrictions)
}

fn builder(plain_queue: bool) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_clamp()
        .setup_r_disabled()
        .setup_cqsize(COMPLETIONS);
    if plain_queue {
        builder.setup_no_sqarray();
    }
    builder
}

/// Kernels before 6.17 refuse the bound with EINVAL. The receive is aimed at a closed descriptor,
/// so that elsewhere it fails as EBADF.
fn accepts_bounded_recv(mut ring: IoUring) -> io::Result<bool> {
    ring.submitter().register_enable_rings()?;
    let closed = types::Fd(i32::MAX);
    let recv = bounded(opcode::RecvMulti::new(closed, GROUP).build(), BUFFER_BYTES);
    // SAFETY: the receive names no memory: its buffer group does not exist.
    unsafe { ring.submission().push(&recv) }.map_err(|_| io::Error::other("queue full"))?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().map(|cqe| cqe.result());
    Ok(result.is_some_and(|result| result != -libc::EINVAL))
}

/// Lets a multishot receive end after so many bytes: `optlen` of `struct io_uring_sqe`
/// (io_uring_prep_recv(3)), for which the io-uring crate has no setter.
pub(super) fn bounded(mut recv: squeue::Entry, bytes: u32) -> squeue::Entry {
    const { assert!(size_of::<squeue::Entry>() == 64) };
    let words: *mut [u32; 16] = (&raw mut recv).cast();
    // SAFETY: an `Entry` is the 64 bytes of the kernel's structure, aligned to 8, and owned here.
    let words = unsafe { &mut *words };
    // The word at byte 44.
    words[11] = bytes;
    recv
}

fn explain(error: io::Error) -> SetupError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => SetupError::Absent,
        Some(libc::EINVAL) => too_old("IORING_SETUP_DEFER_TASKRUN"),
        Some(libc::ENOMEM) => SetupError::NoMemory,
        Some(libc::EPERM | libc::EACCES) => match sys::io_uring_disabled() {
            Some(1) => SetupError::Disabled {
                value: 1,
                group: ", or run in the group of kernel.io_uring_group",
            },
            Some(value) if value > 1 => SetupError::Disabled { value, group: "" },
            _ => SetupError::Forbidden,
        },
        _ => SetupError::Other(error),
    }
}

fn too_old(missing: &'static str) -> SetupError {
    SetupError::TooOld {
        release: sys::kernel_release(),
        missing,
    }
}

/// All that a worker's ring may do.
const OPERATIONS: [(u8, &str); 7] = [
    (opcode::AcceptMulti::CODE, "IORING_OP_ACCEPT"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    (opcode::Close::CODE, "IORING_OP_CLOSE"),
    (opcode::Connect::CODE, "IORING_OP_CONNECT"),
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
    (opcode::RecvMulti::CODE, "IORING_OP_RECV"),
    (opcode::Send::CODE, "IORING_OP_SEND"),
];

/// The variable of the environment that names features to do without, with commas between them:
/// the tests run a new kernel as if it were an older one.
const WITHOUT: &str = "MAHORAGA_WITHOUT";

/// Room for a batch of completions; more are kept by the kernel (IORING_FEAT_NODROP).
const COMPLETIONS: u32 = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_way_out() {
        let sentence = |errno| explain(io::Error::from_raw_os_error(errno)).to_string();
        assert!(sentence(libc::ENOSYS).contains("seccomp"));
        assert!(sentence(libc::EINVAL).contains("6.1"));
        assert!(sentence(libc::ENOMEM).contains("ulimit -l"));
        assert!(sentence(libc::EPERM).contains("seccomp"));
        assert!(sentence(libc::EIO).contains("can't be set up"));
    }

    #[test]
    fn features_are_switched_off_by_name() {
        let mut features = Features {
            bounded_recv: true,
            plain_queue: true,
            no_iowait: true,
            port_range: true,
            prompt_close: true,
        };
        assert_eq!(features.lacking().count(), 0);
        features.switch_off("bounded_recv").unwrap();
        let lacking: Vec<_> = features.lacking().collect();
        assert!(matches!(lacking[..], [sentence] if sentence.contains("6.17")));
        features.switch_off(" plain_queue, ").unwrap();
        assert_eq!(features.lacking().count(), 2);
        let error = features.switch_off("bundles").unwrap_err().to_string();
        let expected = "invalid feature `bundles` in MAHORAGA_WITHOUT: \
                        expected one of bounded_recv, plain_queue, no_iowait, \
                        port_range, prompt_close";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_worker_ring_refuses_what_no_worker_does() {
        let features = probe().unwrap();
        let (mut ring, _buffers) = build(features, 8, 8).unwrap();
        let path = c"/etc/hostname";
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
        let mut byte = 0u8;
        let read = opcode::Read::new(types::Fd(0), &raw mut byte, 1).build();
        for refused in [open, read] {
            // SAFETY: `path` and `byte` live to the end of the test; the completion is awaited.
            unsafe { ring.submission().push(&refused) }.unwrap();
            ring.submit_and_wait(1).unwrap();
            assert_eq!(ring.completion().next().unwrap().result(), -libc::EACCES);
        }
    }
}
