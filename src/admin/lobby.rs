//! Clients of a server between accept and their connection: those that have closed meanwhile cost
//! no slot.

use std::collections::VecDeque;
use std::io;
use std::net as tcp;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::sys::{self, Presence};

/// Clients that were accepted and wait for a slot.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    there: VecDeque<Client>,
    /// Those that send no more: one is served each [`ENDED_PAUSE`], and beyond [`ENDED_MAX`] the
    /// oldest is dropped.
    ended: VecDeque<Client>,
    /// When the last one of them was served.
    served_at: Option<Instant>,
}

impl Lobby {
    pub(super) fn has_room(&self) -> bool {
        self.there.len() < THERE_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.there.is_empty() && self.ended.is_empty()
    }

    /// Many clients have sent a request and closed.
    pub(super) fn is_crowded(&self) -> bool {
        self.ended.len() >= ENDED_AT_ONCE
    }

    pub(super) fn take_in(&mut self, client: Client) {
        match client.presence() {
            Presence::There => self.there.push_back(client),
            Presence::Ended => {
                if self.ended.len() == ENDED_MAX {
                    self.ended.pop_front();
                }
                self.ended.push_back(client);
            }
            Presence::Gone => {}
        }
    }

    /// The first one that is there still, or one that sends no more.
    pub(super) fn next(&mut self, is_backlog_empty: bool) -> Option<Client> {
        while let Some(client) = self.there.pop_front() {
            match client.presence() {
                Presence::There => return Some(client),
                Presence::Ended | Presence::Gone => self.take_in(client),
            }
        }
        let rested = self.served_at.is_none_or(|at| at.elapsed() >= ENDED_PAUSE);
        // Without a crowd there is nothing to wait for.
        let may_ask = rested || is_backlog_empty && !self.is_crowded();
        let client = self.ended.pop_front_if(|_| may_ask)?;
        self.served_at = Some(Instant::now());
        Some(client)
    }
}

/// A client that was accepted, of which the runtime knows nothing yet.
#[derive(Debug)]
pub(super) enum Client {
    Tcp(tcp::TcpStream),
    Unix(net::UnixStream),
}

impl Client {
    fn presence(&self) -> Presence {
        match self {
            Self::Tcp(client) => sys::presence(client),
            Self::Unix(client) => sys::presence(client),
        }
    }

    /// The connection, with a copy of its descriptor.
    pub(super) fn begin(self) -> io::Result<(Box<dyn Stream>, OwnedFd)> {
        Ok(match self {
            Self::Tcp(client) => {
                // Answers are whole: there is nothing to wait for.
                client.set_nodelay(true)?;
                client.set_nonblocking(true)?;
                let copy = client.as_fd().try_clone_to_owned()?;
                (Box::new(TcpStream::from_std(client)?), copy)
            }
            Self::Unix(client) => {
                client.set_nonblocking(true)?;
                let copy = client.as_fd().try_clone_to_owned()?;
                (Box::new(UnixStream::from_std(client)?), copy)
            }
        })
    }
}

/// A connection of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Clients that are there and wait for a slot; others stay in the backlog.
const THERE_MAX: usize = 256;
/// Clients that have ended their requests, and wait until others are taken in.
const ENDED_MAX: usize = 256;
/// Fewer of them are no flood, and none of them waits.
const ENDED_AT_ONCE: usize = 8;
const ENDED_PAUSE: Duration = Duration::from_millis(10);
