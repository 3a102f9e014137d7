//! The service manager: messages to it, and sockets that it passes (sd_notify(3),
//! sd_listen_fds(3)).
//!
//! Without a service manager `NOTIFY_SOCKET` is not set, and nothing is sent. A message is one
//! datagram. A message that can't be sent is logged, and has no other effect. While the manager
//! does not read, the last messages wait, and are sent again each second.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use parking_lot::Mutex;
use sd_notify::NotifyState;
use socket2::{SockRef, Type};

use crate::address::Address;
use crate::config::Listener;
use crate::sys;

use super::Inherited;

/// The balancer is ready: after the first round of probes and names, and after each reload.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload has begun; [`ready`] ends it, whatever its outcome is.
pub(super) fn reloading() {
    // Type=notify-reload needs the time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("cannot read the clock for the service manager: {error}"),
    }
}

/// The balancer is stopping, and waits for its sessions to end.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Feeds the watchdog; to be called every [`watchdog_period`].
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is due: twice as often as the manager requires. `None`: there is no
/// watchdog.
#[must_use]
pub(super) fn watchdog_period() -> Option<Duration> {
    let period = sd_notify::watchdog_enabled()? / 2;
    (!period.is_zero()).then_some(period)
}

fn tell(what: &[NotifyState<'_>]) {
    let mut late = LATE.lock();
    if late.len() == LATE_MAX {
        late.pop_front();
    }
    late.push_back(what.iter().map(|one| format!("{one}\n")).collect());
    drop(late);
    tell_late();
}

/// Sends the messages that the manager had no room for. Never blocks.
pub(super) fn tell_late() {
    let mut late = LATE.lock();
    let Some(manager) = env::var_os("NOTIFY_SOCKET") else {
        return late.clear();
    };
    while let Some(message) = late.front() {
        match send(&manager, message) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => log::warn!("cannot notify the service manager: {error}"),
            Ok(()) => {}
        }
        late.pop_front();
    }
}

fn send(manager: &OsStr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(manager)?;
    // A datagram is sent whole or not at all.
    socket.send(message.as_bytes()).map(drop)
}

/// Messages that the manager had no room for.
static LATE: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
/// When there are more, the oldest are dropped: the newest has the present state.
const LATE_MAX: usize = 16;

/// Whether the service manager passes listening sockets (sd_listen_fds(3)).
pub(super) fn hands_in() -> bool {
    let pid = env::var("LISTEN_PID").ok();
    pid.and_then(|pid| pid.parse().ok()) == Some(std::process::id())
}

/// The listening sockets that the service manager passed, by the indices of their listeners in the
/// configuration. A socket belongs to the listener with its address, otherwise to the listener with
/// its name (`FileDescriptorName=`). One without a listener is kept for a reload that adds one,
/// with a warning.
///
/// To be called once.
///
/// # Errors
/// The environment variables of the passed descriptors are invalid.
pub(super) fn activated(listeners: &[Listener]) -> io::Result<Inherited> {
    let handed = sys::handed_descriptors()?.into_iter();
    let handed = handed.filter_map(|(socket, name)| match listens_at(&socket) {
        Ok(address) => Some((socket, Handed { name, address })),
        Err(error) => {
            log::warn!("cannot use the passed descriptor `{name}`: {error}");
            None
        }
    });
    let (sockets, passed): (Vec<_>, Vec<_>) = handed.unzip();
    let places = assign(listeners, &passed);
    let mut activated = Inherited::default();
    for ((socket, handed), place) in sockets.into_iter().zip(passed).zip(places) {
        match place {
            Some(place) => {
                let (name, listener) = (&handed.name, &listeners[place].name);
                log::info!("listener `{listener}` uses the passed socket `{name}`");
                activated.by_listener.insert(place, socket);
            }
            None => {
                log::warn!(
                    "{handed} was passed and is not used: no listener has its address or name"
                );
                let address = handed.address;
                activated
                    .spare
                    .extend(address.map(|address| (address, socket)));
            }
        }
    }
    Ok(activated)
}

/// A socket that was passed.
#[derive(Debug)]
struct Handed {
    name: String,
    /// `None`: a Unix socket without a path.
    address: Option<Address>,
}

impl std::fmt::Display for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the socket `{}`", self.name)?;
        match &self.address {
            Some(address) => write!(f, " on {address}"),
            None => Ok(()),
        }
    }
}

/// The address of a listening stream socket; others are refused.
fn listens_at(socket: &OwnedFd) -> io::Result<Option<Address>> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        let why = "expected a listening stream socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let local = socket.local_addr()?;
    let path = || {
        local
            .as_pathname()
            .map(|path| Address::Unix(path.to_owned()))
    };
    Ok(local.as_socket().map(Address::Tcp).or_else(path))
}

/// The index of each socket's listener. Addresses go before names, as all sockets of one unit may
/// have the same name.
fn assign(listeners: &[Listener], handed: &[Handed]) -> Vec<Option<usize>> {
    let mut places = vec![None; handed.len()];
    for by_name in [false, true] {
        for (nth, one) in handed.iter().enumerate() {
            let fits = |listener: &Listener| {
                if by_name {
                    one.name == listener.name
                } else {
                    one.address.as_ref() == Some(&listener.bind)
                }
            };
            let is_free = |place: usize| !places.contains(&Some(place));
            let mut listeners = listeners.iter().enumerate();
            let place = listeners.find(|(place, listener)| is_free(*place) && fits(listener));
            if places[nth].is_none() {
                places[nth] = place.map(|(place, _)| place);
            }
        }
    }
    places
}

#[cfg(test)]
mod tests;
