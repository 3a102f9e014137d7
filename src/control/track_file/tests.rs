//! The file is rewritten where it is a regular one, and nothing else is.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use super::*;

#[test]
fn it_takes_regular_files_only() {
    let dir = std::env::temp_dir().join(format!("track_file_{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("left");
    write(&path, false).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    write(&path, true).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "0\n");
    let fifo = dir.join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    // Without a reader, and with one.
    let told = write(&fifo, true).unwrap_err().to_string();
    assert!(told.contains("expected a regular file"), "{told}");
    let mut options = fs::OpenOptions::new();
    let _both = options.read(true).write(true).open(&fifo).unwrap();
    let told = write(&fifo, true).unwrap_err().to_string();
    assert!(told.contains("expected a regular file"), "{told}");
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
    assert!(sys::can_rewrite(&fifo).is_err());
    sys::can_rewrite(&path).unwrap();
    sys::can_rewrite(&dir.join("new")).unwrap();
    fs::remove_dir_all(&dir).unwrap();
}
