//! Unix sockets that a reload opens. A file system may not answer, so this happens on the thread of
//! the reading; the control thread takes what was opened, and asks no file system.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::address::Address;
use crate::config::Config;
use crate::sys::{self, Bound, SocketFile, SocketPlace};

use super::aside;
use super::workers::HeldSockets;

/// The Unix sockets that this process has when a reading begins.
pub(super) struct Present {
    /// Where the files of listeners' sockets are, by the listeners' ids.
    pub(super) listeners: Vec<(u64, Address, SocketPlace)>,
    /// Where that of the API is.
    pub(super) admin: Option<SocketPlace>,
    /// The addresses of all sockets, also of removed listeners.
    pub(super) held: HashSet<Address>,
}

/// Where a listener gets its sockets from.
pub(super) enum SocketSource {
    New(Bound),
    HeldSockets(HeldSockets),
}

/// What a reading opened. The files of sockets that nothing takes are removed on another thread.
#[derive(Default)]
pub(super) struct Opened {
    /// For new listeners.
    pub(super) new: HashMap<Address, io::Result<SocketSource>>,
    /// Instead of sockets whose files were removed or replaced, by the listeners' ids.
    pub(super) again: Vec<(u64, Bound)>,
    /// The same for the API.
    pub(super) admin: Option<(OwnedFd, SocketFile)>,
}

impl Present {
    /// Opens what the listeners of a configuration need, if it could be read, and sockets whose
    /// files are gone. May block.
    pub(super) fn open(&self, config: Option<&Config>) -> Opened {
        let mut opened = Opened::default();
        for (id, bind, place) in &self.listeners {
            if let Some((socket, file)) = replacement(place, bind) {
                let bound = Bound::of_file(bind, socket, file);
                opened.again.push((*id, bound));
            }
        }
        let admin = self.admin.as_ref();
        opened.admin = admin.and_then(|place| replacement(place, &"the admin API"));
        let listeners = config.into_iter().flat_map(|config| &config.listeners);
        for listener in listeners.filter(|listener| !self.held.contains(&listener.bind)) {
            if let Address::Unix(path) = &listener.bind {
                opened.new.insert(listener.bind.clone(), self.source(path));
            }
        }
        opened
    }

    fn source(&self, path: &Path) -> io::Result<SocketSource> {
        // The same file may have another path.
        let mut places = self.listeners.iter();
        match places.find(|(.., place)| place.is_at(path)) {
            Some((id, ..)) => Ok(SocketSource::HeldSockets(HeldSockets::Leaving(*id))),
            None => listen(path).map(SocketSource::New),
        }
    }
}

impl Opened {
    fn is_empty(&self) -> bool {
        self.new.is_empty() && self.again.is_empty() && self.admin.is_none()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.is_empty() {
            let all = (
                std::mem::take(&mut self.new),
                std::mem::take(&mut self.again),
                self.admin.take(),
            );
            drop(aside::close(move || drop(all)));
        }
    }
}

/// Listens on a path. A socket there that the last reload removed may still be closing on another
/// thread, and has its lock until then.
#[expect(
    clippy::disallowed_methods,
    reason = "a reading has a thread of its own"
)]
fn listen(path: &Path) -> io::Result<Bound> {
    let mut bound = sys::listen_path(path);
    for _ in 0..BUSY_LOOKS {
        match bound {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(BUSY_PAUSE),
            bound => return bound,
        }
        bound = sys::listen_path(path);
    }
    bound
}

fn replacement(place: &SocketPlace, what: &dyn Display) -> Option<(OwnedFd, SocketFile)> {
    let socket = place.listen_again();
    let failed = |error| log::error!("cannot listen on {what} again: {error}; its file is gone");
    let socket = socket.map_err(failed).ok()??;
    log::warn!("the socket file of {what} was removed or replaced: listening there again");
    Some(socket)
}

/// For half a second.
const BUSY_LOOKS: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(5);
