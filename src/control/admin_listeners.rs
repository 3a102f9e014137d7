//! What the admin API listens on.

use std::env;
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{Door, Handle, Tokens, serve};
use crate::config::{Admin, AdminHttp};

use super::StartError;
use super::listening::Patience;

/// Sockets of the API, before anything is answered.
pub(super) struct AdminListeners {
    listeners: Vec<Door>,
    /// With where they come from.
    pub(super) tokens: Option<(Tokens, AdminHttp)>,
}

/// What answers, until it is closed.
pub(super) struct Servers {
    stop: watch::Sender<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl AdminListeners {
    /// Listens where the configuration says. The default socket may be in use, as another balancer
    /// runs in this directory: then there is none.
    ///
    /// # Errors
    /// An address or a socket that is configured can't be listened on.
    pub(super) async fn open(
        admin: Option<&Admin>,
        patience: &Patience,
    ) -> Result<Self, StartError> {
        let (mut listeners, mut all) = (Vec::new(), None);
        let Some(admin) = admin else {
            return Ok(Self {
                listeners,
                tokens: None,
            });
        };
        if let Some(path) = &admin.socket {
            let path = &where_usual(path, admin.required);
            // The default socket delays no start.
            let brief = Patience::brief();
            let patience = if admin.required { patience } else { &brief };
            match patience.bind(|| Door::unix(path)).await {
                Ok(door) => {
                    log::info!("admin API on {}", path.display());
                    listeners.push(door);
                }
                Err(error) if admin.required => {
                    let at = path.display().to_string();
                    return Err(StartError::Admin { at, error });
                }
                Err(error) => log::warn!("no admin API: {}: {error}", path.display()),
            }
        }
        if let Some(http) = &admin.http {
            let tokens = Tokens::read(http)?;
            all = Some((tokens.clone(), http.clone()));
            let bind = || Door::http(http.bind, tokens.clone());
            let door = patience.bind(bind).await;
            let door = door.map_err(|error| StartError::Admin {
                at: http.bind.to_string(),
                error,
            })?;
            if let Some(address) = door.address() {
                log::info!("admin API on http://{address}");
            }
            listeners.push(door);
        }
        Ok(Self {
            listeners,
            tokens: all,
        })
    }

    /// Answers from now on.
    pub(super) fn serve(self, handle: &Handle) -> Servers {
        let (stop, stopped) = watch::channel(());
        let listeners = self.listeners.into_iter();
        let tasks =
            listeners.map(|door| tokio_uring::spawn(serve(door, handle.clone(), stopped.clone())));
        Servers {
            tasks: tasks.collect(),
            stop,
        }
    }
}

/// The default socket is in the directory that the service manager made for such files, if it did
/// (RuntimeDirectory=, systemd.exec(5)).
fn where_usual(path: &Path, is_named: bool) -> PathBuf {
    let directories = env::var_os("RUNTIME_DIRECTORY").filter(|_| !is_named);
    let first = directories.and_then(|all| env::split_paths(&all).next());
    first.map_or_else(|| path.to_owned(), |directory| directory.join(path))
}

impl Servers {
    /// Ends what is being answered.
    pub(super) async fn close(self) {
        drop(self.stop);
        for task in self.tasks {
            // A task that panicked has ended the process.
            let _ = task.await;
        }
    }
}
