//! What TCP knows of a connection (tcp(7), TCP_INFO).

use std::mem;

use crate::kernel::{Socket, TcpInfo};

use super::count_calls;

/// What TCP knows of a connection; `None` for a Unix socket.
#[must_use]
pub fn tcp_info(socket: &Socket) -> Option<TcpInfo> {
    // SAFETY: `tcp_info` is plain numbers, for which zeros are values.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    count_calls(1);
    // SAFETY: the kernel writes at most `len` bytes, the size of `info`, before the call returns;
    // the `Socket` that is borrowed for it owns the descriptor.
    let done = unsafe {
        libc::getsockopt(
            socket.raw(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    (done == 0).then_some(TcpInfo {
        rtt_us: info.tcpi_rtt,
        retransmits: info.tcpi_total_retrans,
        lost: info.tcpi_lost,
    })
}
