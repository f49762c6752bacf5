//! A file of weights as named float32 tensors.
//!
//! In: a `.pt` or safetensors file. Out: its tensors, numbers as float32, counters as they are.
//! Never: looks at what the names mean.

use std::collections::BTreeMap;
use std::path::Path;

use catlip_pipeline::source::map::MappedFile;
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::{ExchangeError, torch_file};
use crate::error::{TrainError, first_line};

/// First bytes of a zip file.
const ZIP: &[u8] = b"PK\x03\x04";

/// Tensors by name.
pub type State = BTreeMap<String, Tensor>;

/// Reads the weights in the file at `path`.
///
/// # Errors
///
/// [`TrainError::Input`], [`TrainError::Exchange`].
pub fn read(path: &Path) -> Result<State, TrainError> {
    let bytes = MappedFile::open(path).map_err(TrainError::input(path))?;
    let tensors = if bytes.starts_with(ZIP) {
        torch_file::read(path, &bytes)?
    } else {
        safetensors(path, &bytes)?
    };
    let number = |(name, tensor): (String, Tensor)| {
        let tensor = match tensor.kind() {
            Kind::Half | Kind::BFloat16 | Kind::Double => tensor.f_to_kind(Kind::Float)?,
            _ => tensor,
        };
        Ok((name, tensor))
    };
    tensors.into_iter().map(number).collect::<Result<_, _>>().map_err(TrainError::torch("convert"))
}

/// The tensors of safetensors.
///
/// # Errors
///
/// [`ExchangeError`].
pub fn safetensors(path: &Path, bytes: &[u8]) -> Result<State, ExchangeError> {
    let Ok(file) = SafeTensors::deserialize(bytes) else {
        return Err(ExchangeError::Unknown { path: path.to_path_buf() });
    };
    let mut state = State::new();
    for (name, view) in file.iter() {
        let wrong = |found: String| ExchangeError::Tensor {
            path: path.to_path_buf(),
            name: name.to_owned(),
            found,
            expected: "float32, float16, bfloat16, float64 or int64".to_owned(),
        };
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            other => return Err(wrong(format!("{other:?}"))),
        };
        let size: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &size, kind);
        state.insert(name.to_owned(), tensor.map_err(|error| wrong(first_line(&error)))?);
    }
    Ok(state)
}
