//! What a service manager is told, and what it hands in: sd_notify(3), sd_listen_fds(3).
//!
//! Without one nothing is told, as `NOTIFY_SOCKET` is not set then. A message is one datagram to
//! the manager; that it can't be told stops nothing, and is logged. While the manager does not read
//! the last messages wait, and are sent each second again.

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

/// Clients are taken, and what is known of the backends was asked for once: after the start, and
/// after each reload.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends that, however it went.
pub(super) fn reloading() {
    // Type=notify-reload wants to know since when.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("the service manager can't be told the time: {error}"),
    }
}

/// It was asked to end, and lets sessions do so.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// It is alive; to be told every [`watchdog_period`].
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is due: twice as often as the manager asks for; `None`: it does not ask.
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

/// Sends what the manager had no room for. Never waits.
pub(super) fn tell_late() {
    let mut late = LATE.lock();
    let Some(manager) = env::var_os("NOTIFY_SOCKET") else {
        return late.clear();
    };
    while let Some(message) = late.front() {
        match send(&manager, message) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => log::warn!("the service manager can't be told: {error}"),
            Ok(()) => {}
        }
        late.pop_front();
    }
}

fn send(manager: &OsStr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(manager)?;
    // A datagram goes whole or not at all.
    socket.send(message.as_bytes()).map(drop)
}

/// Messages that the manager had no room for.
static LATE: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
/// The oldest are dropped: the last one says how things are.
const LATE_MAX: usize = 16;

/// Whether a service manager hands in sockets that listen (sd_listen_fds(3)).
pub(super) fn hands_in() -> bool {
    let pid = env::var("LISTEN_PID").ok();
    pid.and_then(|pid| pid.parse().ok()) == Some(std::process::id())
}

/// The sockets that the manager listens on for us, by the places of their listeners in the
/// configuration. A socket is for the listener that binds its address; else for the one whose name
/// it has (`FileDescriptorName=`). One of no listener waits for a reload that brings it, with a
/// warning.
///
/// To be called once, and before the first thread is made.
///
/// # Errors
/// What was handed in makes no sense.
pub(super) fn activated(listeners: &[Listener]) -> io::Result<Inherited> {
    let handed = sys::handed_descriptors()?.into_iter();
    let handed = handed.filter_map(|(socket, name)| match listens_at(&socket) {
        Ok(address) => Some((socket, Handed { name, address })),
        Err(error) => {
            log::warn!("the descriptor `{name}` that was handed in is closed: {error}");
            None
        }
    });
    let (sockets, said): (Vec<_>, Vec<_>) = handed.unzip();
    let places = assign(listeners, &said);
    let mut activated = Inherited::default();
    for ((socket, handed), place) in sockets.into_iter().zip(said).zip(places) {
        match place {
            Some(place) => {
                let (name, listener) = (&handed.name, &listeners[place].name);
                log::info!("listener `{listener}` has the socket `{name}` that was handed in");
                activated.by_listener.insert(place, socket);
            }
            None => {
                log::warn!("{handed} that was handed in is not used: no listener is like it");
                let address = handed.address;
                activated
                    .spare
                    .extend(address.map(|address| (address, socket)));
            }
        }
    }
    Ok(activated)
}

/// What is known of a socket that was handed in.
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

/// The address of a socket that listens for streams; others are refused.
fn listens_at(socket: &OwnedFd) -> io::Result<Option<Address>> {
    let socket = SockRef::from(socket);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        let why = "it does not listen for streams";
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

/// The listener of each, by its place: addresses before names, as sockets of one unit may all have
/// the same name.
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
