//! System calls outside the rings: sockets, pipes, eventfds, threads and limits.

#![expect(unsafe_code, reason = "calls that neither std nor socket2 wraps")]

mod calls;
mod clock;
mod descriptor;
mod doorbell;
mod files;
mod helper;
mod interfaces;
mod memory;
mod origin;
mod own_addresses;
mod own_end;
mod passing;
mod ports;
mod privileges;
mod process;
mod seccomp;
mod socket;
mod syn_filter;
mod tcp_info;
mod unix;
mod users;

pub use calls::calls_of_thread;
pub(crate) use calls::count_calls;
pub use clock::{boot_time, monotonic};
pub use descriptor::{
    clear_eventfd, close, close_owned, close_pipe, duplicate, eventfd, handed_descriptors, notify,
    own_descriptor_table, pipe,
};
pub use doorbell::Doorbell;
pub use files::{
    can_append_to, can_listen_at, can_make, can_replace, can_rewrite, is_open_to_others,
    open_private, open_regular, open_to_append, open_to_rewrite,
};
pub use helper::{dismiss_helper, start_helper};
pub use interfaces::interface_addresses;
pub use memory::{
    TcpMemory, TcpSegments, available_memory, tcp_memory, tcp_segments, vec_in_huge_pages,
};
pub use origin::{
    begin_at, disable_port_range, finds_port_range, has_address_towards, has_port_range,
    probe_address, probe_transparency,
};
pub use own_addresses::{OwnAddresses, is_own_address, is_own_host, read_bind_rules};
pub use own_end::own_end;
pub use passing::{descriptor_channel, receive_descriptors, send_descriptors};
pub use ports::{is_one_end, local_ports, read_local_ports};
pub use privileges::{
    Capability, done_with_rings, drop_privileges, effective_capabilities, filters_need_net_admin,
    has_capability, has_no_new_privileges,
};
pub use process::{
    allowed_cpus, await_signals, block_signals, descriptor_limit, hold_signals, host_name,
    io_uring_disabled, kernel_release, pin_to, precise_timers, raise_descriptor_limit,
    release_signals, replace_handlers, with_signals_blocked,
};
pub use seccomp::{can_filter_calls, confine_process, confine_worker, misbehave, settle_allocator};
pub use socket::{
    BACKLOG, Binding, Bound, Presence, accept, acknowledge, connect_now, drop_new_clients,
    dropped_clients, has_ended, has_unread, hold, inherit, is_connected_to_itself, is_hung_up,
    keep_alive, let_in_new_clients, listen_all, listen_alone, listen_path, listen_port,
    open_socket, peer_address, presence, reset_client, reset_on_close, send_room, set_backlog,
    shutdown, socket_address, socket_memory, unsent,
};
pub use syn_filter::{SynMaps, attach_classic, detach_filter};
pub use tcp_info::tcp_info;
pub use unix::{SocketFile, SocketPlace, SocketTarget};
pub use users::{Account, user_id};
