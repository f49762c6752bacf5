// Pixels to the rows of a matrix, what a stem made of them to tokens, and the way back of that.
//
// In: pixels `[b, h, w, 3]`, one byte each; rows of the grid. Out: patches as a linear stem
// multiplies them, 0…1; tokens `[b, t, d]`, float32. Never: flips or crops, that was done before.
//
// b images, p side of a patch, t tokens: prefix tokens, then those of the grid; d width. Pieces of
// work are counted in 32 bits: at most 2³¹ × 8 numbers.
#include "number.h"

namespace {

// A thread has eight pixels of a line of a patch, in all three colours.
template <typename T>
__device__ void
patchify(const unsigned char* pixels, T* patches, Index b, Index height, Index width, Index p) {
  // Divisions of 32 bits, which cost a fraction of those of 64.
  const unsigned chunks = (p + EIGHT - 1) / EIGHT, grid_w = width / p;
  const unsigned pieces = grid_w * chunks, all = b * height * pieces;
  // What a stem multiplies lies by colour, line and column of the patch.
  const Index plane = p * p, patch_numbers = COLOURS * plane;
  const bool is_wide = p % EIGHT == 0;
  unsigned piece = blockIdx.x * blockDim.x + threadIdx.x;
  for (; piece < all; piece += gridDim.x * blockDim.x) {
    const unsigned line = piece / pieces, rest = piece % pieces;
    const unsigned grid_x = rest / chunks, from = rest % chunks * EIGHT;
    const unsigned grid_line = line / unsigned(p), y = line % unsigned(p);
    const int count = count_of(from, p);
    const unsigned char* source = pixels + (line * width + grid_x * p + from) * COLOURS;
    T* to = patches + (Index(grid_line) * grid_w + grid_x) * patch_numbers + y * p + from;
    float values[COLOURS][EIGHT];
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
#pragma unroll
      for (int colour = 0; colour < COLOURS; ++colour) {
        values[colour][at] = at < count ? unit(source[at * COLOURS + colour]) : 0.0f;
      }
    }
#pragma unroll
    for (int colour = 0; colour < COLOURS; ++colour) {
      store(to + colour * plane, values[colour], count, is_wide);
    }
  }
}

template <typename T>
__device__ void tokens(
    const T* grid,
    const float* positions,
    const float* prefix,
    float* out,
    Index b,
    Index t,
    Index num_prefix,
    Index width,
    bool is_wide) {
  const unsigned chunks = (width + EIGHT - 1) / EIGHT, all = b * t * chunks;
  const Index num_grid = t - num_prefix;
  unsigned piece = blockIdx.x * blockDim.x + threadIdx.x;
  for (; piece < all; piece += gridDim.x * blockDim.x) {
    const Index row = piece / chunks, from = piece % chunks * EIGHT;
    const Index image = unsigned(row) / unsigned(t), token = unsigned(row) % unsigned(t);
    const int count = count_of(from, width);
    float values[EIGHT];
    if (token < num_prefix) {
      load(values, prefix + token * width + from, count, is_wide);
    } else {
      const Index place = token - num_prefix;
      float more[EIGHT];
      load(values, grid + (image * num_grid + place) * width + from, count, is_wide);
      load(more, positions + place * width + from, count, is_wide);
#pragma unroll
      for (int at = 0; at < EIGHT; ++at) {
        values[at] += more[at];
      }
    }
    store(out + row * width + from, values, count, is_wide);
  }
}

template <typename T>
__device__ void tokens_back(
    const float* gradient,
    T* of_grid,
    float* partials,
    Index b,
    Index t,
    Index num_prefix,
    Index width,
    bool is_wide) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const Index columns = t * width, prefix_columns = num_prefix * width;
  const Index grid_columns = columns - prefix_columns;
  const Index start = Index(blockIdx.x) * COLUMNS, from = start + lane * EIGHT;
  const int count = count_of(from, columns);
  float sums[EIGHT] = {};
  Index row = Index(blockIdx.y) * COLUMN_WARPS + warp;
  for (; row < b; row += Index(gridDim.y) * COLUMN_WARPS) {
    float values[EIGHT];
    load(values, gradient + row * columns + from, count, is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      sums[at] += values[at];
    }
    T* to = of_grid + row * grid_columns + (from - prefix_columns);
    if (from >= prefix_columns) {
      store(to, values, count, is_wide);
    } else {
      // Eight numbers may begin in the prefix and end behind it.
#pragma unroll
      for (int at = 0; at < EIGHT; ++at) {
        if (at < count && from + at >= prefix_columns) {
          to[at] = narrowed<T>(values[at]);
        }
      }
    }
  }
  write_column_sums(partials, sums, start, columns, columns);
}

} // namespace

#define PATCHIFY(NAME, T)                                                                        \
  extern "C" __global__ void NAME(                                                               \
      const unsigned char* pixels, T* patches, Index b, Index height, Index width, Index p) {    \
    patchify<T>(pixels, patches, b, height, width, p);                                           \
  }

PATCHIFY(patchify_f32, float)
PATCHIFY(patchify_bf16, bf16)

#define TOKENS(NAME, T)                                                                          \
  extern "C" __global__ void NAME(                                                               \
      const T* grid, const float* positions, const float* prefix, float* out, Index b, Index t,  \
      Index num_prefix, Index width, Index is_wide) {                                            \
    tokens<T>(grid, positions, prefix, out, b, t, num_prefix, width, is_wide);                   \
  }

TOKENS(tokens_f32, float)
TOKENS(tokens_bf16, bf16)

// The gradient of `grid`, rounded, and the sums of `gradient` over images `[gridDim.y, t, d]`.
#define TOKENS_BACK(NAME, T)                                                                     \
  extern "C" __global__ void NAME(                                                               \
      const float* gradient, T* of_grid, float* partials, Index b, Index t, Index num_prefix,    \
      Index width, Index is_wide) {                                                              \
    tokens_back<T>(gradient, of_grid, partials, b, t, num_prefix, width, is_wide);               \
  }

TOKENS_BACK(tokens_back_f32, float)
TOKENS_BACK(tokens_back_bf16, bf16)
