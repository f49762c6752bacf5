//! Captions of Python, wherever they lie.
//!
//! In: a list or tuple of `str` or `None`, or whatever speaks the Arrow PyCapsule interface. Out:
//! [`Captions`], read row by row. Never: copies an Arrow column of strings; believes its bytes or
//! offsets, which are checked row by row where they are used.

use std::ops::Range;

use arrow_array::builder::LargeStringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{ByteArrayType, ByteViewType};
use arrow_array::{
    Array, ArrayRef, GenericByteArray, GenericByteViewArray, LargeStringArray, StringArray,
    StringViewArray,
};
use arrow_buffer::ArrowNativeType;
use arrow_schema::DataType;
use arrow_select::take::{TakeOptions, take};
use catlip_pipeline::error::exit;
use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::capsule;
use crate::error::raised;

/// A row that is no caption.
#[derive(Debug, thiserror::Error)]
#[error("row {row} cannot be labelled: {message}")]
pub struct BadRow {
    /// Its number, from 0, over all arrays.
    pub row: usize,
    /// What is wrong with it.
    pub message: String,
}

impl From<BadRow> for PyErr {
    fn from(error: BadRow) -> Self {
        raised(&error, None, exit::INPUT)
    }
}

/// Arrays of captions.
pub struct Captions(Vec<Texts>);

/// An array of captions by its type, which each row would else ask for.
enum Texts {
    Short(StringArray),
    Long(LargeStringArray),
    Views(StringViewArray),
    /// So many nulls.
    Nulls(usize),
}

impl Captions {
    /// The captions that `object` holds.
    ///
    /// # Errors
    ///
    /// `TypeError` for what holds none; `CatlipError` for a `str` that no UTF-8 can hold.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(list) = object.cast::<PyList>() {
            return Self::of_texts(list.iter());
        }
        if let Ok(tuple) = object.cast::<PyTuple>() {
            return Self::of_texts(tuple.iter());
        }
        let Some(arrays) = capsule::arrays_of(object)? else {
            return Err(PyTypeError::new_err(format!(
                "captions are {}, expected str, a list or tuple of str or None, a pandas Series, \
                 or an Arrow array of strings",
                object.get_type().name()?
            )));
        };
        let mut all = arrays.iter().map(Texts::of).collect::<PyResult<Vec<_>>>()?;
        // A stream may be empty; what becomes of it has a type all the same.
        if all.is_empty() {
            all.push(Texts::Nulls(0));
        }
        Ok(Self(all))
    }

    fn of_texts<'py>(texts: impl Iterator<Item = Bound<'py, PyAny>>) -> PyResult<Self> {
        let mut all = LargeStringBuilder::new();
        for (row, text) in texts.enumerate() {
            if text.is_none() {
                all.append_null();
                continue;
            }
            let Ok(text) = text.cast::<PyString>() else {
                return Err(PyTypeError::new_err(format!(
                    "row {row} is {}, expected str or None",
                    text.get_type().name()?
                )));
            };
            all.append_value(text_of(text, row)?);
        }
        Ok(Self(vec![Texts::Long(all.finish())]))
    }

    /// Rows of each array.
    pub fn rows(&self) -> Vec<usize> {
        self.0.iter().map(Texts::len).collect()
    }

    /// Captions of some rows of an array, to be read one by one.
    pub fn of_rows(&self, array: usize, rows: Range<usize>) -> Rows<'_> {
        let before = self.0[..array].iter().map(Texts::len).sum();
        let texts = &self.0[array];
        Rows { texts, before, whole: texts.whole(rows) }
    }
}

/// Rows of an array that lie side by side.
pub struct Rows<'a> {
    texts: &'a Texts,
    /// Rows of the arrays before.
    before: usize,
    /// The texts of all of them and where they begin, if all are UTF-8. Checked one by one they
    /// cost a fifteenth of the rule.
    whole: Option<(usize, &'a str)>,
}

impl<'a> Rows<'a> {
    /// The caption in that row of the array; `None` for a null.
    ///
    /// # Errors
    ///
    /// [`BadRow`] for bytes that are no UTF-8, or that lie outside of the array.
    pub fn get(&self, row: usize) -> Result<Option<&'a str>, BadRow> {
        self.texts
            .get(row, self.whole)
            .map_err(|message| BadRow { row: self.before + row, message })
    }
}

/// The text of a `str`, borrowed.
///
/// # Errors
///
/// `CatlipError` for a lone surrogate, which Python's strings may hold and UTF-8 may not.
pub fn text_of<'a>(text: &'a Bound<'_, PyString>, row: usize) -> PyResult<&'a str> {
    text.to_str().map_err(|error| {
        let py = text.py();
        let at = error.value(py).getattr("start").and_then(|start| start.extract::<usize>());
        match at {
            Ok(at) if error.is_instance_of::<PyUnicodeEncodeError>(py) => {
                let message = format!("it is not UTF-8: half of a surrogate pair at index {at}");
                BadRow { row, message }.into()
            }
            _ => error,
        }
    })
}

impl Texts {
    /// An array of strings; those of a dictionary are laid out row by row.
    fn of(array: &ArrayRef) -> PyResult<Self> {
        match array.data_type() {
            DataType::Utf8 => Ok(Self::Short(array.as_string::<i32>().clone())),
            DataType::LargeUtf8 => Ok(Self::Long(array.as_string::<i64>().clone())),
            DataType::Utf8View => Ok(Self::Views(array.as_string_view().clone())),
            DataType::Null => Ok(Self::Nulls(array.len())),
            DataType::Dictionary(_, _) => {
                let keyed = array.as_any_dictionary();
                let checked = Some(TakeOptions { check_bounds: true });
                let laid_out = take(keyed.values(), keyed.keys(), checked)
                    .map_err(|e| PyValueError::new_err(format!("the dictionary is broken: {e}")))?;
                Self::of(&laid_out)
            }
            other => Err(PyTypeError::new_err(format!(
                "captions are Arrow data of type {other}, expected strings; take one column of a \
                 table, flatten a list"
            ))),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Short(array) => array.len(),
            Self::Long(array) => array.len(),
            Self::Views(array) => array.len(),
            Self::Nulls(len) => *len,
        }
    }

    /// The texts of `rows` one after the other and where the first begins, if that is UTF-8.
    fn whole(&self, rows: Range<usize>) -> Option<(usize, &str)> {
        let (start, bytes) = match self {
            Self::Short(array) => bytes_of(array, rows)?,
            Self::Long(array) => bytes_of(array, rows)?,
            // They lie anywhere.
            Self::Views(_) | Self::Nulls(_) => return None,
        };
        Some((start, std::str::from_utf8(bytes).ok()?))
    }

    fn get<'a>(
        &'a self,
        row: usize,
        whole: Option<(usize, &'a str)>,
    ) -> Result<Option<&'a str>, String> {
        let found = match self {
            Self::Short(array) if array.is_valid(row) => text_at(array, row, whole),
            Self::Long(array) if array.is_valid(row) => text_at(array, row, whole),
            Self::Views(array) if array.is_valid(row) => view_at(array, row).map(checked),
            _ => return Ok(None),
        };
        found.ok_or("its offsets lead out of the array")?.map(Some)
    }
}

fn checked(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        format!("it is not UTF-8: byte 0x{:02x} at offset {at}", bytes[at])
    })
}

/// Bytes of a text that stands in its view.
const VIEW_BYTES_MAX: usize = 12;

/// The bytes of `rows` and where they begin; `None` if the offsets lead elsewhere.
fn bytes_of<T: ByteArrayType>(
    array: &GenericByteArray<T>,
    rows: Range<usize>,
) -> Option<(usize, &[u8])> {
    let offsets = array.value_offsets();
    let at = |index: usize| -> Option<usize> { offsets.get(index)?.to_usize() };
    let (start, end) = (at(rows.start)?, at(rows.end)?);
    Some((start, array.value_data().get(start..end)?))
}

/// The text of a row: of those that were checked together, else by itself, which also says what is
/// wrong with it.
fn text_at<'a, T: ByteArrayType>(
    array: &'a GenericByteArray<T>,
    row: usize,
    whole: Option<(usize, &'a str)>,
) -> Option<Result<&'a str, String>> {
    let of_whole = whole.and_then(|(start, text)| {
        let offsets = array.value_offsets();
        let at = |index: usize| offsets.get(index)?.to_usize()?.checked_sub(start);
        // Offsets in the midst of a character or out of order are no range of it.
        text.get(at(row)?..at(row + 1)?)
    });
    match of_whole {
        Some(text) => Some(Ok(text)),
        None => bytes_of(array, row..row + 1).map(|(_, bytes)| checked(bytes)),
    }
}

fn view_at<T: ByteViewType + ?Sized>(array: &GenericByteViewArray<T>, row: usize) -> Option<&[u8]> {
    // As Arrow lays it out, from the low end, 32 bits each: the length; then the text itself where
    // it is short, else its first 4 bytes, the number of a buffer and an offset in that.
    let view = *array.views().get(row)?;
    let number = |at: u32| (view >> (32 * at)) as u32 as usize;
    let length = number(0);
    if length <= VIEW_BYTES_MAX {
        let start = row * size_of::<u128>() + size_of::<u32>();
        return array.views().inner().get(start..start + length);
    }
    array.data_buffers().get(number(2))?.get(number(3)..number(3).checked_add(length)?)
}
