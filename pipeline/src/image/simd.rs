//! Whether libjpeg was built with SIMD.
