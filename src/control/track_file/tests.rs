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
    // As a person would reset it.
    fs::write(&path, " -254\n").unwrap();
    write(&path, false).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    let config = dir.join("config.ron");
    for other in ["(listeners: [])", "0\n\0", &"1".repeat(NUMBER_MAX)] {
        fs::write(&config, other).unwrap();
        let told = write(&config, true).unwrap_err().to_string();
        assert!(told.contains("something else than a number"), "{told}");
        assert!(can_write(&config).is_err());
        assert_eq!(fs::read_to_string(&config).unwrap(), other);
    }
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
    assert!(can_write(&fifo).is_err());
    can_write(&path).unwrap();
    can_write(&dir.join("new")).unwrap();
    fs::remove_dir_all(&dir).unwrap();
}
