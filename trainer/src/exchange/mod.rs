//! Models in and out: files of other programs ↔ a folder of ours.
//!
//! In: PyTorch's `.pt` and safetensors with the names of the reference, of timm or of Hugging Face.
//! Out: a model folder, and from one what timm and Hugging Face load. Never: runs what a file asks
//! for; a tensor that is silently left out.

pub mod torch_file;
pub mod state;
pub mod names;
pub mod error;
pub mod model_folder;
mod heads;
pub mod import;
pub mod export;
pub mod logits;

pub use error::ExchangeError;
pub use model_folder::ModelFolder;

#[cfg(test)]
mod tests;
