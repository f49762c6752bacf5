//! Compiled kernels kept on a disk.
//!
//! In: an architecture; a folder, or none. Out: the cubin of each file. Never: takes what other
//! text, options or another compiler made; leaves half a file; fails for the folder's sake.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use catlip_pipeline::prep::commit;
use sha2::{Digest, Sha256};

use super::error::KernelError;
use super::nvrtc::{Nvrtc, OPTIONS};
use super::source::{FILES, File, HEADER};

/// Bytes of the hash that ends a kept file.
const HASH_BYTES: usize = 32;

/// A file of kernels, compiled.
#[derive(Debug)]
pub struct Cubin {
    /// The file.
    pub file: &'static File,
    /// The device's code.
    pub cubin: Vec<u8>,
}

/// All files for `architecture`, from `folder` where they are kept there; else compiled, side by
/// side, and kept. A folder that cannot be written only costs the next start its time.
///
/// # Errors
///
/// [`KernelError`] of the first file that does not compile.
pub fn compiled(folder: Option<&Path>, architecture: &str) -> Result<Vec<Cubin>, KernelError> {
    let nvrtc = Nvrtc::find()?;
    compiled_by(nvrtc, folder, architecture)
}

/// The same by a given compiler.
///
/// # Errors
///
/// As of [`compiled`].
pub fn compiled_by(
    nvrtc: Nvrtc,
    folder: Option<&Path>,
    architecture: &str,
) -> Result<Vec<Cubin>, KernelError> {
    let one = |file: &'static File| {
        let path = folder.map(|folder| folder.join(name(file, architecture, nvrtc.version)));
        if let Some(cubin) = path.as_deref().and_then(kept) {
            return Ok(Cubin { file, cubin });
        }
        let cubin = nvrtc.compile(file, architecture, &[])?.cubin;
        if let Some(path) = &path {
            keep(path, &cubin);
        }
        Ok(Cubin { file, cubin })
    };
    thread::scope(|scope| {
        let threads: Vec<_> = FILES.iter().map(|file| scope.spawn(move || one(file))).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(cubin) => cubin,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

/// The name of a kept file: all that its bytes are made of is in it.
fn name(file: &File, architecture: &str, version: [i32; 2]) -> PathBuf {
    let mut hasher = Sha256::new();
    for part in [file.text, HEADER, architecture].into_iter().chain(OPTIONS) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(version.map(i32::to_le_bytes).concat());
    let hash: String = hasher.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
    let stem = file.name.trim_end_matches(".cu");
    PathBuf::from(format!("{stem}-{architecture}-{hash}.cubin"))
}

/// What is kept at `path`, if it is whole.
fn kept(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let hash = bytes.split_off(bytes.len().checked_sub(HASH_BYTES)?);
    (Sha256::digest(&bytes)[..] == hash[..]).then_some(bytes)
}

fn keep(path: &Path, cubin: &[u8]) {
    let whole = [cubin, &Sha256::digest(cubin)[..]].concat();
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    // Without a cache all works, only slower.
    _ = folder.and_then(|()| commit::write_whole(path, &whole));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_text_architecture_and_compiler_apart() {
        let one = name(&FILES[0], "sm_90", [13, 0]);
        assert!(one.to_string_lossy().starts_with("norm-sm_90-"), "{one:?}");
        let others = [
            name(&FILES[0], "sm_80", [13, 0]),
            name(&FILES[0], "sm_90", [13, 1]),
            name(&File { text: "other", ..FILES[0] }, "sm_90", [13, 0]),
        ];
        assert!(others.iter().all(|other| *other != one));
    }

    #[test]
    fn what_is_kept_is_read_back_and_what_is_cut_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("norm.cubin");
        keep(&path, b"device code");
        assert_eq!(kept(&path).unwrap(), b"device code");
        let whole = fs::read(&path).unwrap();
        for cut in [0, 5, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(kept(&path), None, "{cut} bytes");
        }
        assert_eq!(kept(&folder.path().join("absent")), None);
    }
}
