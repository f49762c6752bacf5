//! Where a command may write: a folder that is new, empty or its own.
//!
//! In: a folder that the user named. Out: leave to write there, or what is in the way; the lock of
//! a run, which one process holds. Never: writes anything but the lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::Path;

use catlip_pipeline::prep::lock::Lock;
use catlip_pipeline::source::store::RemoteUrl;

use crate::error::TrainError;

/// The lock of a run, and who holds it in words.
pub const LOCK: &str = ".lock";
/// Most bytes that are read of it: a number and the name of a host.
const HOLDER_BYTES_MAX: u64 = 256;

/// Refuses a folder in which anything lies but what a command that was killed may have left: files
/// whose names are `own`, or begin so behind the dot of a temporary one.
///
/// # Errors
///
/// [`TrainError::NotOnDisk`] for a URL, [`TrainError::Foreign`], [`TrainError::Io`].
pub fn check(folder: &Path, own: &[&str]) -> Result<(), TrainError> {
    check_on_disk(folder)?;
    let foreign =
        |found: &str| TrainError::Foreign { path: folder.to_path_buf(), found: found.to_owned() };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(foreign("it is a file"));
        }
        Err(error) => return Err(TrainError::io("list", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(TrainError::io("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    check_names(folder, &names, own)
}

/// Refuses the names in a folder as [`check`] does, wherever that lies.
///
/// # Errors
///
/// [`TrainError::Foreign`].
pub fn check_names(folder: &Path, names: &[String], own: &[&str]) -> Result<(), TrainError> {
    let is_own = |name: &str| {
        let left = name.strip_prefix('.').filter(|left| own.iter().any(|n| left.starts_with(n)));
        name == LOCK || left.is_some() || own.contains(&name)
    };
    match names.iter().find(|name| !is_own(name)) {
        None => Ok(()),
        Some(found) => {
            Err(TrainError::Foreign { path: folder.to_path_buf(), found: found.clone() })
        }
    }
}

/// Refuses a URL, of which the system would make a local folder.
///
/// # Errors
///
/// [`TrainError::NotOnDisk`].
pub fn check_on_disk(folder: &Path) -> Result<(), TrainError> {
    let text = folder.to_string_lossy();
    match RemoteUrl::parse(&text) {
        Ok(None) if !text.contains("://") => Ok(()),
        _ => Err(TrainError::NotOnDisk { path: folder.to_path_buf() }),
    }
}

/// Makes `folder` if need be and takes its lock, which the system gives back when the file is
/// closed, however the process ends; none where the file system has no locks.
///
/// # Errors
///
/// [`TrainError::Locked`] with who holds it; [`TrainError::Io`].
pub fn lock(folder: &Path) -> Result<Option<Lock>, TrainError> {
    fs::create_dir_all(folder).map_err(TrainError::io("create", folder))?;
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(TrainError::io("open", &path))?;
    let lock = match Lock::on(file) {
        Ok(lock) => lock,
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who it is helps, and is not needed to refuse.
            _ = File::open(&path)
                .and_then(|file| file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder));
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                holder => holder.to_owned(),
            };
            return Err(TrainError::Locked { path: folder.to_path_buf(), holder });
        }
        Err(TryLockError::Error(_)) => return Ok(None),
    };
    fs::write(&path, format!("{}\n", holder())).map_err(TrainError::io("write", &path))?;
    Ok(Some(lock))
}

/// This process, in words.
pub fn holder() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("process {} on host {}", std::process::id(), host.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_anything_else_and_a_url_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run");
        check(&folder, &["a.json"]).unwrap();
        fs::create_dir(&folder).unwrap();
        for left in ["a.json", ".a.json.7-0.tmp", LOCK] {
            fs::write(folder.join(left), "").unwrap();
        }
        check(&folder, &["a.json"]).unwrap();
        fs::write(folder.join("thesis.txt"), "").unwrap();
        let error = check(&folder, &["a.json"]).unwrap_err().to_string();
        assert!(error.ends_with("run holds something else: thesis.txt"), "{error}");
        let error = check(&folder.join("thesis.txt"), &[]).unwrap_err().to_string();
        assert!(error.ends_with("holds something else: it is a file"), "{error}");
        let error = check("s3://bucket/run".as_ref(), &[]).unwrap_err().to_string();
        assert!(error.starts_with("s3://bucket/run is a URL"), "{error}");
    }

    #[test]
    fn a_lock_names_its_holder_and_is_given_back_with_the_file() {
        let place = tempfile::tempdir().unwrap();
        let held = lock(place.path()).unwrap().unwrap();
        let error = lock(place.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} on host ", std::process::id())), "{error}");
        drop(held);
        lock(place.path()).unwrap().unwrap();
    }
}
