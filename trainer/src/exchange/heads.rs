//! How many attention heads a file of weights has, which no shape says.
//!
//! In: where the file lies, or width and depth. Out: the number, if a file beside it says it or a
//! size is known by it. Never: a guess.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::config::ModelSize;
use crate::model::StemKind;
use crate::run_folder::RunFolder;

/// Files beside weights, and where in them the number stands: our models', timm's, Hugging Face's,
/// and of models with our own code.
const FILES: [(&str, &str); 4] = [
    ("model.json", "/model/num_heads"),
    ("config.json", "/model_args/num_heads"),
    ("config.json", "/num_attention_heads"),
    ("config.json", "/heads"),
];

/// What the files beside the weights at `path` say, or the run whose checkpoint they are.
pub fn beside(path: &Path) -> Option<i64> {
    let folder = path.parent()?;
    let said = |(file, pointer): &(&str, &str)| {
        let json: Value = serde_json::from_slice(&fs::read(folder.join(file)).ok()?).ok()?;
        json.pointer(pointer)?.as_i64()
    };
    let of_run = || {
        // RUN/checkpoints/step-00000008/model.safetensors
        let config = RunFolder::new(folder.parent()?.parent()?).config(&[]).ok()?;
        Some(config.model_shape()[2])
    };
    FILES.iter().find_map(said).or_else(of_run)
}

/// That of a size with a name. Of the largest the reference, with its stem, has 20 and others 16.
pub fn of_size(width: i64, depth: i64, stem: StemKind) -> Option<i64> {
    use ModelSize::{Base, Huge, Large, Small, Tiny};
    let size = [Tiny, Small, Base, Large, Huge].into_iter().find(|size| {
        let [w, d, _] = size.shape();
        [w, d] == [width, depth]
    });
    size.filter(|size| *size != Huge || stem == StemKind::Corenet).map(|size| size.shape()[2])
}
