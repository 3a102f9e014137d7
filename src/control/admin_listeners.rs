//! What the admin API, and those who read metrics, are served on.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admin::{AdminListener, Handle, Replacement, TokenFile, Tokens, serve};
use crate::config::{ADMIN_SOCKET, Admin, AdminHttp, Config, MetricsHttp, TokenFiles};
use crate::sys::{SocketFile, SocketPlace};

use super::StartError;
use super::listening::Patience;

/// Sockets of the API, before anything is answered.
pub(super) struct AdminListeners {
    listeners: Vec<AdminListener>,
    /// Those of each, with where they come from.
    pub(super) tokens: Vec<(Tokens, TokenFiles)>,
    /// The Unix socket.
    pub(super) socket: Option<AdminSocket>,
}

/// The Unix socket of the API: where its file is, and where a socket is sent that replaces it.
pub(super) struct AdminSocket {
    pub(super) place: SocketPlace,
    replace: mpsc::UnboundedSender<Replacement>,
}

impl AdminSocket {
    /// Goes on with another socket.
    pub(super) fn replace(&mut self, socket: OwnedFd, file: SocketFile) {
        self.place = file.place();
        // The server ends only with the process.
        let _ = self.replace.send((socket.into(), file));
    }
}

/// What answers, until it is closed.
pub(super) struct AdminServers {
    stop: watch::Sender<()>,
    tasks: Vec<JoinHandle<()>>,
}

/// The file of the API's Unix socket, which no other balancer can listen on from here on. `None`:
/// no socket is configured, or another balancer in this directory uses the default one.
///
/// # Errors
/// [`StartError::Admin`]: another balancer uses the configured socket, or its directory can't be
/// written.
pub(super) fn claim(admin: Option<&Admin>) -> Result<Option<SocketFile>, StartError> {
    let Some((admin, path)) = admin.and_then(|admin| Some((admin, admin.socket.as_ref()?))) else {
        return Ok(None);
    };
    let path = socket_path(path, admin.required);
    with_default(SocketFile::claim(&path), admin, &path)
}

/// All that is wrong with the files of tokens.
pub(super) fn token_mistakes(config: &Config) -> Vec<StartError> {
    let http = config.admin.as_ref().and_then(|admin| admin.http.as_ref());
    let admin = http.map(|http| ("admin", http.tokens()));
    let metrics = config.metrics.as_ref().and_then(MetricsHttp::tokens);
    let files = admin.into_iter().chain(metrics.map(|its| ("metrics", its)));
    let mistakes = files.flat_map(|(of, files)| {
        let mistakes = Tokens::mistakes(&files).into_iter();
        mistakes.map(move |error| StartError::Token { of, error })
    });
    mistakes.collect()
}

/// What is needed for the Unix socket. A start fails without the configured one, and does without
/// the default one.
fn with_default<T>(
    outcome: io::Result<T>,
    admin: &Admin,
    path: &Path,
) -> Result<Option<T>, StartError> {
    match outcome {
        Ok(one) => Ok(Some(one)),
        Err(error) if admin.required => {
            let at = path.display().to_string();
            Err(StartError::Admin { at, error })
        }
        Err(error) => {
            log::warn!("{}", absent(path, &error));
            Ok(None)
        }
    }
}

/// Why there is no default socket, and what helps.
pub(super) fn absent(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let forbidden = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem,
    ];
    let place = match forbidden.contains(&error.kind()) {
        true => " where its user may make one",
        false => " of its own",
    };
    format!(
        "no admin API: {path}: {error}; to give this balancer a socket{place}, write \
         admin: (socket: \"PATH\") in its file (`run`) or --admin PATH (`proxy`)"
    )
}

impl AdminListeners {
    /// Listens where the configuration says. `socket` is what [`claim`] answered with.
    ///
    /// # Errors
    /// A configured address or socket can't be listened on.
    pub(super) async fn open(
        config: &Config,
        socket: Option<SocketFile>,
        patience: &Patience,
    ) -> Result<Self, StartError> {
        let mut all = Self {
            listeners: Vec::new(),
            tokens: Vec::new(),
            socket: None,
        };
        if let Some(admin) = &config.admin {
            all.open_admin(admin, socket, patience).await?;
        }
        if let Some(metrics) = &config.metrics {
            all.open_metrics(metrics, patience).await?;
        }
        Ok(all)
    }

    async fn open_admin(
        &mut self,
        admin: &Admin,
        socket: Option<SocketFile>,
        patience: &Patience,
    ) -> Result<(), StartError> {
        if let Some(mut file) = socket {
            let path = file.path().to_owned();
            // The default socket delays no start.
            let brief = Patience::brief();
            let patience = if admin.required { patience } else { &brief };
            let listener = patience.bind(|| file.listen_privately()).await;
            let place = listener.is_ok().then(|| file.place());
            let listener = listener.and_then(|listener| AdminListener::unix(listener, file));
            if let Some((listener, replace)) = with_default(listener, admin, &path)? {
                log::info!("admin API on {}", path.display());
                self.socket = place.map(|place| AdminSocket { place, replace });
                self.listeners.push(listener);
            }
        }
        if let Some(http) = &admin.http {
            let (made, tokens) = self.tokens_of(admin, http)?;
            let bind = || AdminListener::http(http.bind, tokens.clone());
            let listener = patience.bind(bind).await;
            let listener = listener.map_err(|error| StartError::Admin {
                at: http.bind.to_string(),
                error,
            })?;
            if let Some(address) = listener.address() {
                log::info!("admin API and dashboard on http://{address}/");
            }
            self.listeners.push(listener.serving(http, made));
        }
        Ok(())
    }

    async fn open_metrics(
        &mut self,
        metrics: &MetricsHttp,
        patience: &Patience,
    ) -> Result<(), StartError> {
        let (bind, allow) = (metrics.bind, &metrics.allow);
        let files = metrics.tokens();
        let tokens = files.map(|files| self.read_tokens("metrics", files));
        let tokens = tokens.transpose()?;
        let listen = || AdminListener::metrics(bind, allow, tokens.clone());
        let listener = patience.bind(listen).await;
        let listener = listener.map_err(|error| StartError::Metrics { bind, error })?;
        if let Some(address) = listener.address() {
            log::info!("metrics on http://{address}/metrics");
        }
        self.listeners.push(listener);
        Ok(())
    }

    /// The tokens of the API over HTTP: those of the files that the configuration names, or new
    /// ones with the file that they are in.
    fn tokens_of(
        &mut self,
        admin: &Admin,
        http: &AdminHttp,
    ) -> Result<(Option<TokenFile>, Tokens), StartError> {
        if !http.makes_tokens {
            return Ok((None, self.read_tokens("admin", http.tokens())?));
        }
        let path = token_file(admin);
        let made = TokenFile::make(&path);
        let (file, tokens) = made.map_err(|error| StartError::Admin {
            at: path.display().to_string(),
            error,
        })?;
        log::info!("the tokens of the admin API are in {}", path.display());
        Ok((Some(file), tokens))
    }

    fn read_tokens(&mut self, of: &'static str, files: TokenFiles) -> Result<Tokens, StartError> {
        let tokens = Tokens::read(&files).map_err(|error| StartError::Token { of, error })?;
        self.tokens.push((tokens.clone(), files));
        Ok(tokens)
    }

    /// Answers from now on.
    pub(super) fn serve(self, handle: &Handle) -> AdminServers {
        let (stop, stopped) = watch::channel(());
        let listeners = self.listeners.into_iter();
        let tasks = listeners
            .map(|listener| tokio_uring::spawn(serve(listener, handle.clone(), stopped.clone())));
        AdminServers {
            tasks: tasks.collect(),
            stop,
        }
    }
}

/// Where the tokens are that a balancer makes: beside its admin socket, or where that would be.
#[must_use]
pub fn token_file(admin: &Admin) -> PathBuf {
    let socket = admin.socket.as_deref();
    let socket = socket.unwrap_or_else(|| Path::new(ADMIN_SOCKET));
    TokenFile::beside(&socket_path(socket, admin.required))
}

/// The default socket is in the directory that the service manager made for such files, if it did
/// (RuntimeDirectory=, systemd.exec(5)).
pub(super) fn socket_path(path: &Path, is_named: bool) -> PathBuf {
    let directories = env::var_os("RUNTIME_DIRECTORY").filter(|_| !is_named);
    let first = directories.and_then(|all| env::split_paths(&all).next());
    first.map_or_else(|| path.to_owned(), |directory| directory.join(path))
}

impl AdminServers {
    /// Ends what is being answered.
    pub(super) async fn close(self) {
        drop(self.stop);
        for task in self.tasks {
            // A task that panicked has ended the process.
            let _ = task.await;
        }
    }
}
