//! Tensors on disk: safetensors, with their SHA-256.
//!
//! In: named tensors. Out: a file that is durable when [`write()`] returns, and the same tensors.
//! Never: renames; writes onto a file that is there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::error::CheckpointError;
use crate::model::Weights;
use catlip_pipeline::prep::Folder;
use catlip_schemas::checkpoint::CheckpointFile;

/// Bytes that are gathered before the system is asked to write.
const WRITE_BYTES: usize = 1 << 20;

/// Writes tensors, float32 or int64, in the given order.
///
/// # Errors
///
/// [`CheckpointError::Io`], [`CheckpointError::Torch`].
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<CheckpointFile, CheckpointError> {
    let file = File::create_new(path).map_err(CheckpointError::io("create", path))?;
    let mut out = BufWriter::with_capacity(WRITE_BYTES, file);
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let written = write_to(&mut out, path, &name, tensors)?;
    let file = out.into_inner().map_err(|e| CheckpointError::io("write", path)(e.into_error()))?;
    file.sync_all().map_err(CheckpointError::io("flush", path))?;
    Ok(written)
}

/// Writes tensors into a file of a store, whole or not at all; a checkpoint knows it as `file`.
///
/// # Errors
///
/// [`CheckpointError::Io`], [`CheckpointError::Store`], [`CheckpointError::Torch`].
pub fn put(
    folder: &Folder,
    name: &str,
    file: &str,
    tensors: &[(String, Tensor)],
) -> Result<CheckpointFile, CheckpointError> {
    let created = folder.create(name).map_err(CheckpointError::of_place)?;
    let mut out = BufWriter::with_capacity(WRITE_BYTES, created);
    let path = folder.path(name);
    let written = write_to(&mut out, &path, file, tensors)?;
    let created = out.into_inner().map_err(|e| e.into_error());
    let created = created.map_err(CheckpointError::io("write", &path))?;
    created.keep().map_err(|error| CheckpointError::of_place(error.into()))?;
    Ok(written)
}

fn write_to(
    out: impl Write,
    path: &Path,
    name: &str,
    tensors: &[(String, Tensor)],
) -> Result<CheckpointFile, CheckpointError> {
    let mut out = Hashed { out, hasher: Sha256::new() };
    let header = header(tensors);
    let mut bytes = 0;
    let mut put = |data: &[u8]| {
        bytes += data.len() as u64;
        out.write_all(data).map_err(CheckpointError::io("write", path))
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(header.as_bytes())?;
    let mut data = Vec::new();
    for (_, tensor) in tensors {
        let on_host = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
        data.resize(bytes_of(&on_host), 0);
        on_host.f_copy_data_u8(&mut data, on_host.numel())?;
        put(&data)?;
    }
    Ok(CheckpointFile { file: name.to_owned(), bytes, sha256: hex(&out.hasher.finalize()) })
}

/// All weights under their names, and the counters of training batches before them.
///
/// # Errors
///
/// What libtorch says.
pub fn named(weights: &Weights) -> Result<Vec<(String, Tensor)>, tch::TchError> {
    let count = Tensor::f_scalar_tensor(weights.batches_tracked(), (Kind::Int64, Device::Cpu))?;
    let counters = weights.layout().counters().iter();
    let counters = counters.map(|name| (name.clone(), count.shallow_clone()));
    let entries = weights.entries().map(|(e, view)| (e.name.clone(), view.shallow_clone()));
    Ok(counters.chain(entries).collect())
}

/// Copies the tensors of a file's bytes into `targets`, which have the same names and shapes.
///
/// # Errors
///
/// [`CheckpointError::Format`] if the bytes are no safetensors; [`CheckpointError::Tensor`] for the
/// first name, shape or type that differs.
pub fn read_into(
    path: &Path,
    bytes: &[u8],
    targets: &[(String, Tensor)],
) -> Result<(), CheckpointError> {
    let tensors = parse(path, bytes)?;
    let wrong = |name: &str, found: String, expected: String| CheckpointError::Tensor {
        path: path.to_path_buf(),
        name: name.to_owned(),
        found,
        expected,
    };
    let known: BTreeSet<&str> = targets.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(extra) = tensors.names().into_iter().find(|name| !known.contains(name)) {
        return Err(wrong(extra, "there".to_owned(), "no such tensor".to_owned()));
    }
    for (name, target) in targets {
        let expected = || described(dtype_of(target), &target.size());
        let Ok(view) = tensors.tensor(name) else {
            return Err(wrong(name, "missing".to_owned(), expected()));
        };
        let size: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        if size != target.size() || view.dtype() != dtype_of(target) {
            return Err(wrong(name, described(view.dtype(), &size), expected()));
        }
        let data = Tensor::f_from_data_size(view.data(), &size, target.kind())?;
        tch::no_grad(|| target.shallow_clone().f_copy_(&data))?;
    }
    Ok(())
}

/// Reads all weights and the counter from a file's bytes.
///
/// # Errors
///
/// As [`read_into`].
pub fn read_weights(
    path: &Path,
    bytes: &[u8],
    weights: &mut Weights,
) -> Result<(), CheckpointError> {
    let targets = named(weights)?;
    read_into(path, bytes, &targets)?;
    if !weights.layout().counters().is_empty() {
        weights.set_batches_tracked(targets[0].1.f_int64_value(&[])?);
    }
    Ok(())
}

fn parse<'b>(path: &Path, bytes: &'b [u8]) -> Result<SafeTensors<'b>, CheckpointError> {
    SafeTensors::deserialize(bytes)
        .map_err(|source| CheckpointError::Format { path: path.to_path_buf(), source })
}

/// The header: name → type, shape and place; padded to a multiple of eight bytes.
fn header(tensors: &[(String, Tensor)]) -> String {
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + bytes_of(tensor);
        let entry = serde_json::json!({
            "dtype": dtype_name(dtype_of(tensor)),
            "shape": tensor.size(),
            "data_offsets": [offset, end],
        });
        assert!(header.insert(name.clone(), entry).is_none(), "`{name}` stands twice");
        offset = end;
    }
    header.insert("__metadata__".to_owned(), serde_json::json!({ "format": "pt" }));
    let mut text = serde_json::Value::Object(header).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    text
}

fn bytes_of(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

fn dtype_of(tensor: &Tensor) -> Dtype {
    match tensor.kind() {
        Kind::Float => Dtype::F32,
        Kind::Int64 => Dtype::I64,
        other => unreachable!("our tensors are float32 or int64, this one is {other:?}"),
    }
}

fn dtype_name(dtype: Dtype) -> &'static str {
    if dtype == Dtype::I64 { "I64" } else { "F32" }
}

fn described(dtype: Dtype, size: &[i64]) -> String {
    format!("{dtype:?} {size:?}")
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes through, and hashes what was written.
struct Hashed<W> {
    out: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(data)?;
        self.hasher.update(&data[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
