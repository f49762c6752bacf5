//! The text of the kernels, and which kernel stands in which file.

/// A file of kernels.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// What can be launched.
    pub kernels: &'static [&'static str],
}

/// The name of the header that all include.
pub const HEADER_NAME: &str = "number.h";
/// Its text.
pub const HEADER: &str = include_str!("../../kernels/number.h");

macro_rules! file {
    ($name:literal, $kernels:expr) => {
        File {
            name: $name,
            text: include_str!(concat!("../../kernels/", $name)),
            kernels: $kernels,
        }
    };
}

/// All files of kernels.
pub static FILES: [File; 8] = [
    file!("norm.cu", &["add_norm_f32", "add_norm_bf16", "norm_back_f32", "norm_back_bf16"]),
    file!("gelu.cu", &["gelu_f32", "gelu_bf16", "gelu_back_f32", "gelu_back_bf16"]),
    file!(
        "columns.cu",
        &["column_sum_f32", "column_sum_bf16", "pack_heads_f32", "pack_heads_bf16", "sum_partials"]
    ),
    file!(
        "tokens.cu",
        &[
            "patchify_f32",
            "patchify_bf16",
            "tokens_f32",
            "tokens_bf16",
            "tokens_back_f32",
            "tokens_back_bf16"
        ]
    ),
    file!("loss.cu", &["bce_f32", "bce_bf16", "softmax_f32", "softmax_bf16"]),
    file!(
        "stem.cu",
        &[
            "stem_patches_f32",
            "stem_patches_bf16",
            "stem_patches_of_bytes_f32",
            "stem_patches_of_bytes_bf16",
            "stem_patches_back_f32",
            "stem_patches_back_bf16",
            "square_off_f32",
            "square_off_bf16",
            "normal_gelu_f32",
            "normal_gelu_bf16",
            "normal_gelu_sums_f32",
            "normal_gelu_sums_bf16",
            "normal_gelu_back_f32",
            "normal_gelu_back_bf16"
        ]
    ),
    file!(
        "augment.cu",
        &[
            "range_sums_of_floats",
            "range_sums_of_bytes",
            "range_mix_of_floats_f32",
            "range_mix_of_floats_bf16",
            "range_mix_of_bytes_f32",
            "range_mix_of_bytes_bf16",
            "range_back_of_floats_f32",
            "range_back_of_floats_bf16",
            "range_back_of_bytes_f32",
            "range_back_of_bytes_bf16"
        ]
    ),
    file!("update.cu", &["square_sum", "verdict", "adamw"]),
];
