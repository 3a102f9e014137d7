//! `mahoraga demo`: three small HTTP backends and the balancer in front of them, in one process.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::{env, fs};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::address::Address;
use crate::admin::TokenFile;
use crate::config::{
    self, Admin, AdminHttp, Backend, Config, HistoryPlace, HistorySettings, Listener, Pool,
    Strategy,
};
use crate::control;
use crate::sys;

use super::run;

/// Runs the demo until Ctrl-C.
#[must_use]
pub(super) fn demo() -> ExitCode {
    let started = (0..BACKENDS)
        .map(start_backend)
        .collect::<io::Result<Vec<_>>>();
    let listen = |backends| Ok((backends, free(FRONT_PORT)?, free(DASHBOARD_PORT)?));
    let (backends, front, dashboard) = match started.and_then(listen) {
        Ok(started) => started,
        Err(error) => {
            super::say(&format_args!("error: the demo can't listen: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let socket = admin_socket();
    let own = OwnDirectory::make();
    let history = match &own {
        Ok(own) => HistoryPlace::File(own.0.join("history.db")),
        Err(error) => {
            super::say(&format_args!(
                "the demo keeps its history in memory: {error}"
            ));
            HistoryPlace::Memory
        }
    };
    let config = demo_config((front, dashboard), &backends, &socket, history);
    run::run_then(&config, None, "warn", || {
        let admin = admin_flag(&socket);
        let welcome = welcome(
            (front, dashboard),
            &backends,
            admin.as_deref(),
            &token(&config),
        );
        start_clients(front);
        // Standard output may be a full pipe, so that the write blocks: on a thread of its own.
        thread::spawn(move || io::stdout().write_all(welcome.as_bytes()));
    })
}

/// A directory of this process, which no other user can look into; it is removed at the end.
struct OwnDirectory(PathBuf);

impl OwnDirectory {
    fn make() -> io::Result<Self> {
        let name = format!(
            "mahoraga-demo-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        );
        let path = env::temp_dir().join(name);
        // What is there already is refused, be it a link.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        // What can't be removed is a file of a few KiB among other temporary ones.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The default admin socket, or another one if a balancer uses that.
fn admin_socket() -> PathBuf {
    let socket = match UnixStream::connect(config::ADMIN_SOCKET) {
        Ok(_) => format!("mahoraga-{}.sock", std::process::id()),
        Err(_) => config::ADMIN_SOCKET.to_owned(),
    };
    socket.into()
}

/// The flag by which commands reach this process: an empty one where they need none, and none
/// where no socket could be made.
fn admin_flag(socket: &Path) -> Option<String> {
    UnixStream::connect(socket).ok()?;
    Some(if super::admin::is_default(socket) {
        String::new()
    } else {
        format!(" --admin {}", socket.display())
    })
}

/// The token that allows changes, out of the file of this run.
fn token(config: &Config) -> String {
    let admin = config.admin.as_ref();
    let text = admin.and_then(|admin| fs::read_to_string(control::token_file(admin)).ok());
    let text = text.unwrap_or_default();
    let token = TokenFile::token_in(&text, "write");
    token.unwrap_or_default().to_owned()
}

fn demo_config(
    (front, dashboard): (SocketAddr, SocketAddr),
    backends: &[SocketAddr],
    socket: &Path,
    history: HistoryPlace,
) -> Config {
    let backends = backends.iter().zip(1..).map(|(&address, number)| Backend {
        name: name_of(number),
        ..Backend::at(Address::Tcp(address))
    });
    let pool = Pool {
        strategy: Strategy::default(),
        persist: None,
        ..Pool::of("demo", backends.collect())
    };
    let listener = Listener {
        name: "demo".to_owned(),
        ..Listener::at(Address::Tcp(front), 0)
    };
    Config {
        admin: Some(Admin {
            socket: Some(socket.to_owned()),
            http: Some(AdminHttp {
                is_open: true,
                ..AdminHttp::with_made_tokens(dashboard)
            }),
            ..Admin::default()
        }),
        history: HistorySettings {
            path: history,
            ..HistorySettings::default()
        },
        ..Config::of(vec![listener], vec![pool])
    }
}

/// What to try. `admin` is the flag of commands; without an admin API none is shown. `token` is the
/// one that allows changes.
fn welcome(
    (front, dashboard): (SocketAddr, SocketAddr),
    backends: &[SocketAddr],
    admin: Option<&str>,
    token: &str,
) -> String {
    let list: Vec<_> = backends
        .iter()
        .map(|backend| format!("http://{backend}/"))
        .collect();
    let mut tips = vec![
        (
            format!("curl http://{front}/"),
            "each core takes the backends in turn".to_owned(),
        ),
        (
            format!("wrk -c 100 -d 10 http://{front}/"),
            "load".to_owned(),
        ),
    ];
    let commands = [
        ("top", "backends, rates and latencies, live"),
        ("drain backend-1", "no new sessions for it"),
        ("ready backend-1", "new sessions again"),
    ];
    tips.extend(admin.into_iter().flat_map(|flag| {
        commands.map(|(command, what)| (format!("mahoraga {command}{flag}"), what.to_owned()))
    }));
    tips.push((
        "mahoraga --help".to_owned(),
        "all commands; run them in this directory".to_owned(),
    ));
    tips.push((
        format!("kill -USR1 {}", std::process::id()),
        format!(
            "each core's histograms, here and in {}",
            config::HISTOGRAM_LOG
        ),
    ));
    let width = tips.iter().map(|(command, _)| command.len()).max();
    let width = width.unwrap_or_default();
    let tips = tips
        .iter()
        .map(|(command, what)| format!("  {command:<width$}  {what}\n"));
    format!(
        "Mahoraga balances http://{front}/\n\
         over three HTTP backends in this process: {}\n\
         Some clients in this process ask them now and then.\n\
         \n\
         Open the dashboard: http://{dashboard}/\n\
         Reading takes no token; to make changes, sign in there with\n\
         {token}\n\
         \n\
         Try, in another terminal:\n\
         {}\n\
         Ctrl-C ends it.\n",
        list.join(" "),
        tips.collect::<String>(),
    )
}

/// The name of a backend, both in the balancer and in its own answers.
fn name_of(number: u16) -> String {
    format!("backend-{number}")
}

/// An address with this port, or with a free one if that is taken.
fn free(port: u16) -> io::Result<SocketAddr> {
    listen(port)?.local_addr()
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
}

/// Starts one backend on a thread of its own, which lives as long as the process.
fn start_backend(number: u16) -> io::Result<SocketAddr> {
    let listener = listen(FRONT_PORT + 1 + number)?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = thread::Builder::new().name(name_of(number + 1));
    // The balancer's thread answers them.
    let spawn = || thread.spawn(move || runtime.block_on(serve(listener, number + 1)));
    sys::with_signals_blocked(spawn)?;
    Ok(address)
}

/// Starts a few clients on a thread of their own, so that there is something to see. Without them
/// the demo works too.
fn start_clients(front: SocketAddr) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return;
    };
    let run = async move {
        let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(ask(front))).collect();
        for client in clients {
            let _ = client.await;
        }
    };
    let thread = thread::Builder::new().name("clients".to_owned());
    let spawn = || thread.spawn(move || runtime.block_on(run));
    if let Err(error) = sys::with_signals_blocked(spawn) {
        log::warn!("the demo has no clients of its own: {error}");
    }
}

/// A client that connects, requests something some times, and closes, again and again.
async fn ask(front: SocketAddr) {
    let mut answer = [0; 1024];
    loop {
        // A connection that fails is tried again after the pause.
        if let Ok(mut stream) = TcpStream::connect(front).await {
            // Few and soon over: the end waits for open sessions.
            for _ in 0..fastrand::u32(1..4) {
                let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n");
                if sent.await.is_err() || !stream.read(&mut answer).await.is_ok_and(|n| n > 0) {
                    break;
                }
                pause(20..200).await;
            }
        }
        pause(50..750).await;
    }
}

/// Waits for as long as a person or a slow program may.
async fn pause(ms: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(ms))).await;
}

async fn serve(listener: TcpListener, number: u16) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return log::error!("demo backend {number} cannot listen: {error}"),
    };
    tokio::task::LocalSet::new()
        .run_until(async {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // The connection is gone already, or there is no descriptor now.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                // An error here means that the client has closed.
                tokio::task::spawn_local(async move { answer(stream, number).await });
            }
        })
        .await;
}

/// Answers requests without a body, one after the other (RFC 9112).
async fn answer(mut stream: TcpStream, number: u16) -> io::Result<()> {
    let mut input = Vec::new();
    loop {
        let Some(head) = read_head(&mut stream, &mut input).await? else {
            return Ok(());
        };
        let is_head = head.starts_with("head ");
        let bare = is_head || head.starts_with("get ");
        let close = !bare || head.contains("connection: close") || head.contains("http/1.0");
        let body = format!("Hello from {}\n", name_of(number));
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: {}\r\n\r\n{}",
            body.len(),
            if close { "close" } else { "keep-alive" },
            if is_head { "" } else { &body }
        );
        stream.write_all(response.as_bytes()).await?;
        if close {
            return Ok(());
        }
    }
}

/// The next request's head in lower case; `None` at the end, or when it is too long.
async fn read_head(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<Option<String>> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if let Some(at) = input.windows(END.len()).position(|window| window == END) {
            let head: Vec<u8> = input.drain(..at + END.len()).collect();
            return Ok(Some(String::from_utf8_lossy(&head).to_ascii_lowercase()));
        }
        if input.len() > REQUEST_BYTES_MAX || stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

const BACKENDS: u16 = 3;
const CLIENTS: u16 = 8;
const FRONT_PORT: u16 = 8080;
/// Beyond those of the backends.
const DASHBOARD_PORT: u16 = 8090;
const REQUEST_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_in_a_directory_of_this_user_alone_and_goes_with_it() {
        use std::os::unix::fs::PermissionsExt as _;

        let own = OwnDirectory::make().unwrap();
        let path = own.0.clone();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(path.join("history.db"), "x").unwrap();
        drop(own);
        assert!(!path.exists());
    }

    #[test]
    fn each_command_reaches_this_process() {
        let front: SocketAddr = ([127, 0, 0, 1], 8080).into();
        let both = (front, front);
        let second = welcome(both, &[front], Some(" --admin mahoraga-7.sock"), "secret");
        let commands = |text: &str| {
            let lines = text.lines().filter(|line| line.starts_with("  mahoraga "));
            let lines = lines.filter(|line| !line.contains("--help"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(commands(&second).len(), 3);
        let named = commands(&second)
            .iter()
            .all(|line| line.contains(" --admin mahoraga-7.sock  "));
        assert!(named, "{second}");
        assert_eq!(commands(&welcome(both, &[front], None, "")), [""; 0]);
    }
}
