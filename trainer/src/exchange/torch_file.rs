//! What `torch.save` writes: a zip of a pickle and of the bytes of each storage.
//!
//! In: the bytes of a `.pt` file. Out: its tensors by name, as they are. Never: runs anything, or
//! builds what it does not know; reads beyond a storage; takes a storage whose CRC-32 is wrong.
//!
//! The pickle names classes of PyTorch, "calls" them and refers to storages outside of it. All of
//! that is read as data, and only the few names of `NAMES` may stand there.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use catlip_pipeline::source::pickle::{ORDERED_DICT, Pickle};
use tch::{Kind, Tensor};
use zip::{CompressionMethod, ZipArchive};

use super::ExchangeError;

const REBUILD_TENSOR: &str = "torch._utils._rebuild_tensor_v2";
const REBUILD_PARAMETER: &str = "torch._utils._rebuild_parameter";
/// Every name that may stand in the pickle of a state dict.
const NAMES: &[&str] = &[
    ORDERED_DICT,
    REBUILD_TENSOR,
    REBUILD_PARAMETER,
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.DoubleStorage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.BoolStorage",
];
/// Names under which checkpoints keep the state dict beside other things.
const STATE_DICTS: [&str; 5] =
    ["model_state_dict", "ema_model_state_dict", "state_dict", "model", "model_ema"];
/// Bytes of the pickle: that of ViT-H has 80 kB.
const PICKLE_BYTES_MAX: u64 = 64 << 20;

/// Reads all tensors of the state dict in `bytes`, the file at `path`.
///
/// # Errors
///
/// [`ExchangeError::File`] and [`ExchangeError::Pickle`], with what is wrong and where.
pub fn read(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, ExchangeError> {
    let archive = ZipArchive::new(Cursor::new(bytes));
    let archive = archive.map_err(|error| ExchangeError::file(path, error.to_string()))?;
    let mut file = TorchFile { path, archive, prefix: String::new(), last: None };
    file.find_prefix()?;
    let program = file.entry("data.pkl", PICKLE_BYTES_MAX)?;
    let tree = Pickle::read_named(&program, NAMES)
        .map_err(|source| ExchangeError::Pickle { path: path.to_path_buf(), source })?;
    let mut tensors = BTreeMap::new();
    for (key, value) in state_dict(&tree).ok_or_else(|| file.wrong("it holds no state dict"))? {
        let Pickle::Str(name) = key else {
            return Err(file.wrong(format!("a key of its state dict is {}", key.kind())));
        };
        tensors.insert(name.to_string(), file.tensor(name, value)?);
    }
    Ok(tensors)
}

/// The dict of tensors: the file's own, or the one that it keeps under a name that is known.
fn state_dict<'t, 'a>(tree: &'t Pickle<'a>) -> Option<&'t [(Pickle<'a>, Pickle<'a>)]> {
    let Pickle::Dict(pairs) = tree else { return None };
    let is_tensor = |value: &Pickle| matches!(value, Pickle::Call(..));
    if pairs.iter().any(|(_, value)| is_tensor(value)) {
        return Some(pairs);
    }
    let named = |wanted: &str| {
        let is_it = |key: &Pickle| matches!(key, Pickle::Str(text) if text == wanted);
        pairs.iter().find(|(key, _)| is_it(key)).map(|(_, value)| value)
    };
    STATE_DICTS.iter().find_map(|wanted| state_dict(named(wanted)?))
}

/// An open file.
struct TorchFile<'f> {
    path: &'f Path,
    archive: ZipArchive<Cursor<&'f [u8]>>,
    /// The folder in the zip in which all files stand.
    prefix: String,
    /// The storage that was read last: tensors that share one follow each other.
    last: Option<(String, Tensor)>,
}

/// A storage as the pickle refers to it.
struct Storage {
    kind: Kind,
    key: String,
    numel: i64,
}

impl TorchFile<'_> {
    fn wrong(&self, message: impl Into<String>) -> ExchangeError {
        ExchangeError::file(self.path, message)
    }

    fn find_prefix(&mut self) -> Result<(), ExchangeError> {
        let pickle = self.archive.file_names().find(|name| name.ends_with("/data.pkl"));
        let pickle = pickle.ok_or_else(|| self.wrong("a zip without a data.pkl"))?;
        self.prefix = pickle.trim_end_matches("data.pkl").to_owned();
        let is_little = match self.entry("byteorder", 16) {
            Ok(order) => order == b"little",
            // Written since PyTorch 2.0; all machines before were little-endian too.
            Err(_) => true,
        };
        if is_little { Ok(()) } else { Err(self.wrong("its numbers are big-endian")) }
    }

    /// The bytes of a file in the zip; the CRC-32 is checked as they are read.
    fn entry(&mut self, name: &str, bytes_max: u64) -> Result<Vec<u8>, ExchangeError> {
        let path = self.path;
        let wrong = |message: String| ExchangeError::file(path, format!("`{name}`: {message}"));
        let full_name = format!("{}{name}", self.prefix);
        let entry = self.archive.by_name(&full_name).map_err(|error| wrong(error.to_string()))?;
        if entry.compression() != CompressionMethod::Stored {
            return Err(wrong("it is compressed, which PyTorch never does".to_owned()));
        }
        // Stored, so what is read is in the file: no size that was made up is allocated.
        if entry.size() > bytes_max || entry.size() != entry.compressed_size() {
            return Err(wrong(format!("{} bytes, expected {bytes_max} at most", entry.size())));
        }
        let mut data = Vec::new();
        // One byte more than there may be: the CRC-32 is compared at the end of the entry only.
        entry
            .take(bytes_max + 1)
            .read_to_end(&mut data)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(data)
    }

    fn tensor(&mut self, name: &str, value: &Pickle) -> Result<Tensor, ExchangeError> {
        let wrong = |file: &Self, what: &str| file.wrong(format!("tensor `{name}`: {what}"));
        let arguments = match value {
            Pickle::Call(REBUILD_PARAMETER, arguments) => match arguments.first() {
                Some(Pickle::Call(REBUILD_TENSOR, arguments)) => arguments,
                _ => return Err(wrong(self, "a parameter without a tensor")),
            },
            Pickle::Call(REBUILD_TENSOR, arguments) => arguments,
            other => return Err(wrong(self, &format!("it is {}", other.kind()))),
        };
        let [Pickle::Outside(storage), Pickle::Int(offset), size, stride, ..] =
            arguments.as_slice()
        else {
            return Err(wrong(self, "it has other parts than storage, offset, size, stride"));
        };
        let storage = storage_of(storage).ok_or_else(|| wrong(self, "its storage is unknown"))?;
        let sides = ints(size).zip(ints(stride));
        let (size, stride) = sides.ok_or_else(|| wrong(self, "its size is no tuple of ints"))?;
        let last = last_place(*offset, &size, &stride, storage.numel);
        if last.is_none_or(|last| last > storage.numel) {
            let what = format!(
                "{size:?} with strides {stride:?} from {offset} on leaves its storage of {} \
                 numbers",
                storage.numel
            );
            return Err(wrong(self, &what));
        }
        let flat = self.storage(&storage)?;
        flat.f_as_strided(&size, &stride, *offset)
            .and_then(|tensor| tensor.f_contiguous())
            .map_err(|error| wrong(self, &error.to_string()))
    }

    /// All numbers of a storage.
    fn storage(&mut self, storage: &Storage) -> Result<Tensor, ExchangeError> {
        let name = format!("data/{}", storage.key);
        let kept = self.last.as_ref().filter(|(last, _)| *last == name).map(|(_, flat)| flat);
        if let Some(flat) =
            kept.filter(|flat| flat.kind() == storage.kind && flat.size() == [storage.numel])
        {
            return Ok(flat.shallow_clone());
        }
        let expected = storage.numel as u64 * storage.kind.elt_size_in_bytes() as u64;
        let bytes = self.entry(&name, expected)?;
        if bytes.len() as u64 != expected {
            let found = bytes.len();
            return Err(self.wrong(format!("`{name}`: {found} bytes, expected {expected}")));
        }
        let flat = Tensor::f_from_data_size(&bytes, &[storage.numel], storage.kind)
            .map_err(|error| self.wrong(format!("`{name}`: {error}")))?;
        self.last = Some((name, flat.shallow_clone()));
        Ok(flat)
    }
}

/// `('storage', class, key, device, numbers)`.
fn storage_of(reference: &Pickle) -> Option<Storage> {
    let Pickle::Tuple(parts) = reference else { return None };
    let [Pickle::Str(what), Pickle::Name(class), Pickle::Str(key), _, Pickle::Int(numel)] =
        parts.as_slice()
    else {
        return None;
    };
    let kind = match *class {
        "torch.FloatStorage" => Kind::Float,
        "torch.HalfStorage" => Kind::Half,
        "torch.BFloat16Storage" => Kind::BFloat16,
        "torch.DoubleStorage" => Kind::Double,
        "torch.LongStorage" => Kind::Int64,
        "torch.IntStorage" => Kind::Int,
        "torch.BoolStorage" => Kind::Bool,
        _ => return None,
    };
    // A key is a number; anything else could lead out of the folder of storages.
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
    let numel = (*numel).max(-1);
    (what == "storage" && is_key && (0..1 << 40).contains(&numel)).then(|| Storage {
        kind,
        key: key.to_string(),
        numel,
    })
}

fn ints(tuple: &Pickle) -> Option<Vec<i64>> {
    let Pickle::Tuple(parts) = tuple else { return None };
    let int = |part: &Pickle| match part {
        Pickle::Int(int) if (0..1 << 40).contains(int) => Some(*int),
        _ => None,
    };
    parts.iter().map(int).collect()
}

/// One behind the last number of a storage that the tensor has; none for what cannot be.
fn last_place(offset: i64, size: &[i64], stride: &[i64], numel_max: i64) -> Option<i64> {
    if offset < 0 || size.len() != stride.len() {
        return None;
    }
    if size.contains(&0) {
        return Some(offset);
    }
    // No more numbers than the storage has: a stride of 0 would make much of little.
    let numel = size.iter().try_fold(1_i64, |numel, &side| numel.checked_mul(side))?;
    if numel > numel_max {
        return None;
    }
    let mut last = offset;
    for (&side, &step) in size.iter().zip(stride) {
        last = last.checked_add((side - 1).checked_mul(step)?)?;
    }
    last.checked_add(1)
}
