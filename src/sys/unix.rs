//! Unix sockets that are listened on: their files, and the locks that keep each with one process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Type};

use super::socket::BACKLOG;

/// The file of a Unix socket, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile(SocketPlace);

/// Where the file of a Unix socket is.
#[derive(Clone, Debug)]
pub struct SocketPlace {
    path: PathBuf,
    /// Permissions of the file at most.
    mode: Option<u32>,
    /// Device and inode, once this process listens: another process may have replaced the file.
    identity: Option<(u64, u64)>,
    /// Released after the file is removed. The socket that replaces this one shares it.
    lock: Arc<Lock>,
}

impl SocketPlace {
    /// Whether this is the file at a path, however that is written. Asks the file system, which
    /// may block.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        self.identity.is_some() && identity(path) == self.identity
    }

    /// Listens there again, if the file was removed or replaced; `None`: it is in its
    /// place. Clients that wait in the old socket stay there. Asks the file system, which may
    /// block.
    ///
    /// # Errors
    /// What the kernel says; a path that another process answers on is in use.
    pub fn listen_again(&self) -> io::Result<Option<(OwnedFd, SocketFile)>> {
        if self.is_at(&self.path) {
            return Ok(None);
        }
        let lock = if self.lock.is_in_place() {
            Arc::clone(&self.lock)
        } else {
            Arc::new(Lock::take(&self.path)?)
        };
        let mut file = SocketFile(Self {
            lock,
            identity: None,
            ..self.clone()
        });
        Ok(Some((file.listen(self.mode)?, file)))
    }
}

impl SocketFile {
    /// Takes the lock of a socket's path: no other balancer listens there while this exists.
    ///
    /// # Errors
    /// `ResourceBusy`: another balancer has the lock; or what the kernel says.
    pub fn claim(path: &Path) -> io::Result<Self> {
        // A path that no socket can have gets no lock either.
        SockAddr::unix(path)?;
        Ok(Self(SocketPlace {
            path: path.to_owned(),
            mode: None,
            identity: None,
            lock: Arc::new(Lock::take(path)?),
        }))
    }

    /// Listens on a socket that only this user may connect to (mode 0600). Its calls never block.
    ///
    /// # Errors
    /// What the kernel says; a path that another process answers on is in use.
    pub fn listen_privately(&mut self) -> io::Result<UnixListener> {
        self.listen(Some(0o600)).map(Into::into)
    }

    /// Replaces a socket file that a process left behind when it ended; one that a process answers
    /// on, or any other file, is in use. The file has at most the permissions of `mode`, from its
    /// first moment.
    pub(super) fn listen(&mut self, mode: Option<u32>) -> io::Result<OwnedFd> {
        let path = &self.0.path;
        let address = SockAddr::unix(path)?;
        let kind = Type::STREAM.nonblocking().cloexec();
        // Nonblocking: a process with a full backlog is alive, and would keep this waiting.
        let probe = socket2::Socket::new(Domain::UNIX, kind, None)?;
        match probe.connect(&address).map_err(|error| error.kind()) {
            Ok(()) | Err(io::ErrorKind::WouldBlock) => {
                let sentence = "address in use: another process listens";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, sentence));
            }
            Err(io::ErrorKind::ConnectionRefused) if is_socket(path) => fs::remove_file(path)?,
            Err(_) if identity(path).is_some() => {
                let sentence = "address in use: another file is there";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, sentence));
            }
            Err(_) => {}
        }
        let mut socket = socket2::Socket::new(Domain::UNIX, kind, None)?;
        if let Some(mode) = mode {
            // Linux makes the file with the mode of the socket, less the umask.
            let file = File::from(OwnedFd::from(socket));
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            socket = OwnedFd::from(file).into();
        }
        socket.bind(&address)?;
        (self.0.identity, self.0.mode) = (identity(path), mode);
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The same, to look for it elsewhere.
    #[must_use]
    pub fn place(&self) -> SocketPlace {
        self.0.clone()
    }

    /// Removes the file, unless another one has replaced it, and its lock.
    pub fn remove(&self) {
        self.remove_socket();
        self.0.lock.remove();
    }

    fn remove_socket(&self) {
        if self.0.is_at(&self.0.path) {
            // Another one may have removed it first.
            let _ = fs::remove_file(&self.0.path);
        }
    }
}

impl Drop for SocketFile {
    /// The last owner of the lock removes that.
    fn drop(&mut self) {
        self.remove_socket();
    }
}

/// A lock on a socket's path (flock(2) on a file beside it): of two processes that find a socket
/// left behind, one replaces it. The lock belongs to the open file, so a process that inherits the
/// descriptor has the lock. It ends with the last copy of the descriptor, however the process ends.
/// The file is removed while the lock is still held, also when listening fails. A process that
/// opened the file before that finds another file, or none, at the path once it has the lock, and
/// starts over.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes the lock of a socket's path.
    fn take(socket: &Path) -> io::Result<Self> {
        let path = lock_of(socket);
        let cannot_lock = |error| cannot_lock(&path, &error);
        loop {
            let mut file = open(&path, true).map_err(cannot_lock)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Err(in_use_by(&mut file)),
                Err(fs::TryLockError::Error(error)) => return Err(cannot_lock(error)),
            }
            let own = file.metadata().map_err(cannot_lock)?;
            // The previous owner of the lock removes the file, perhaps after this opened it.
            if identity(&path) == Some((own.dev(), own.ino())) {
                file.set_len(0).map_err(cannot_lock)?;
                writeln!(file, "{}", std::process::id()).map_err(cannot_lock)?;
                return Ok(Self { path, file });
            }
        }
    }

    /// Removes the file; the next lock of the path makes another one.
    fn remove(&self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether this is the file at the path: others that lock the path find it locked.
    fn is_in_place(&self) -> bool {
        let own = self.file.metadata().ok();
        let own = own.map(|own| (own.dev(), own.ino()));
        own.is_some() && identity(&self.path) == own
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether a socket's path can be locked, as far as a file that is there tells.
///
/// # Errors
/// What listening there would say.
pub(super) fn can_lock(socket: &Path) -> io::Result<()> {
    let path = lock_of(socket);
    match open(&path, false) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_lock(&path, &error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn lock_of(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

fn cannot_lock(path: &Path, error: &io::Error) -> io::Error {
    let what = format!("cannot lock {}: {error}", path.display());
    io::Error::new(error.kind(), what)
}

/// Opens a file to lock: private to this user, not through a link, and without blocking.
fn open(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(create)
        .truncate(false);
    options
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("expected a regular file"))
    }
}

fn in_use_by(file: &mut File) -> io::Error {
    let mut pid = String::new();
    // Its owner may not have written its pid yet.
    let _ = file.take(20).read_to_string(&mut pid);
    let sentence = match pid.trim() {
        "" => "another balancer uses this socket".to_owned(),
        pid if pid == std::process::id().to_string() => {
            "this balancer uses the socket already".to_owned()
        }
        pid => format!("another balancer (pid {pid}) uses this socket"),
    };
    io::Error::new(io::ErrorKind::ResourceBusy, sentence)
}

/// What a path leads to, whichever way it is written: two paths of one socket have equal targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketTarget {
    /// Device and inode of the file.
    File(u64, u64),
    /// The path without links and `..`: there is no file yet.
    Path(PathBuf),
}

impl SocketTarget {
    /// Asks the file system, which may block.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(found) => Self::File(found.dev(), found.ino()),
            Err(_) => Self::Path(followed(path.to_owned())),
        }
    }
}

/// A path without links and `..`, although its file may not exist.
fn followed(mut path: PathBuf) -> PathBuf {
    for _ in 0..LINKS_MAX {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => fs::canonicalize(parent),
            Some(_) | None => fs::canonicalize("."),
        };
        let (Ok(directory), Some(name)) = (directory, path.file_name()) else {
            break;
        };
        let whole = directory.join(name);
        match fs::read_link(&whole) {
            Ok(target) => path = directory.join(target),
            Err(_) => return whole,
        }
    }
    path
}

/// As many links as the kernel follows in a path (path_resolution(7)).
const LINKS_MAX: u32 = 40;

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn listen(path: &Path, mode: Option<u32>) -> io::Result<(OwnedFd, SocketFile)> {
        let mut file = SocketFile::claim(path)?;
        Ok((file.listen(mode)?, file))
    }

    /// An empty directory of a test alone.
    fn directory(name: &str) -> PathBuf {
        let name = format!("mahoraga-unix-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_path_has_one_listener_at_a_time() {
        let dir = directory("one");
        let path = dir.join("a.sock");
        // As a process leaves it that was killed.
        drop(UnixListener::bind(&path).unwrap());
        fs::write(dir.join("a.sock.lock"), "1\n").unwrap();
        let (_socket, file) = listen(&path, Some(0o600)).unwrap();
        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().mode() & 0o777;
        assert_eq!(mode("a.sock"), 0o600);
        let error = listen(&path, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(error.to_string(), "this balancer uses the socket already");
        drop(file);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        let (_socket, _file) = listen(&path, None).unwrap();
        assert_eq!(mode("a.sock.lock"), 0o600);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_that_was_removed_is_made_again_and_its_lock_kept() {
        for lock_is_gone in [false, true] {
            let dir = directory("again");
            let path = dir.join("a.sock");
            let (old, file) = listen(&path, Some(0o600)).unwrap();
            assert!(file.place().listen_again().unwrap().is_none());
            fs::remove_file(&path).unwrap();
            if lock_is_gone {
                fs::remove_file(dir.join("a.sock.lock")).unwrap();
            }
            let (_new, again) = file.place().listen_again().unwrap().unwrap();
            drop((old, file));
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            let error = listen(&path, None).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
            // Of another process: it is left alone.
            fs::remove_file(&path).unwrap();
            let foreign = UnixListener::bind(&path).unwrap();
            assert!(again.place().listen_again().is_err());
            drop(again);
            assert!(path.exists() && !dir.join("a.sock.lock").exists());
            drop(foreign);
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn of_many_at_the_same_moment_one_listens() {
        let dir = directory("many");
        for round in 0..50 {
            let path = dir.join(format!("{round}.sock"));
            drop(UnixListener::bind(&path).unwrap());
            let starts: Vec<_> = (0..4)
                .map(|_| {
                    let path = path.clone();
                    std::thread::spawn(move || listen(&path, None).ok())
                })
                .collect();
            let listening: Vec<_> = starts.into_iter().map(|one| one.join().unwrap()).collect();
            assert_eq!(listening.iter().flatten().count(), 1);
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn all_paths_of_a_socket_have_one_target() {
        let dir = directory("target");
        let name = dir.file_name().unwrap().to_str().unwrap();
        let path = dir.join("a.sock");
        symlink("b.sock", dir.join("c.sock")).unwrap();
        symlink("a.sock", dir.join("b.sock")).unwrap();
        symlink(&dir, dir.join("d")).unwrap();
        let others = [
            format!("../{name}/a.sock"),
            "./a.sock".to_owned(),
            "b.sock".to_owned(),
            "c.sock".to_owned(),
            "d/d/c.sock".to_owned(),
        ];
        let target = SocketTarget::of(&path);
        assert!(matches!(&target, SocketTarget::Path(_)));
        for other in &others {
            assert_eq!(SocketTarget::of(&dir.join(other)), target, "{other}");
        }
        assert_ne!(SocketTarget::of(&dir.join("e.sock")), target);
        let _socket = UnixListener::bind(&path).unwrap();
        fs::hard_link(&path, dir.join("e.sock")).unwrap();
        let target = SocketTarget::of(&path);
        assert!(matches!(target, SocketTarget::File(..)));
        for other in others.iter().map(String::as_str).chain(["e.sock"]) {
            assert_eq!(SocketTarget::of(&dir.join(other)), target, "{other}");
        }
        // What goes round ends.
        symlink("f", dir.join("f")).unwrap();
        assert_eq!(
            SocketTarget::of(&dir.join("f")),
            SocketTarget::of(&dir.join("f"))
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = directory("other");
        let path = dir.join("a.sock");
        let foreign = UnixListener::bind(&path).unwrap();
        let error = listen(&path, None).unwrap_err().to_string();
        assert_eq!(error, "address in use: another process listens");
        drop(foreign);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        let error = listen(&path, None).unwrap_err().to_string();
        assert_eq!(error, "address in use: another file is there");
        assert!(!dir.join("a.sock.lock").exists());
        let target = dir.join("target");
        let other = dir.join("b.sock");
        symlink(&target, dir.join("b.sock.lock")).unwrap();
        let error = listen(&other, None).unwrap_err().to_string();
        assert!(error.starts_with("cannot lock "), "{error}");
        assert!(!target.exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
