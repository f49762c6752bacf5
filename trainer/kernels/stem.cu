// The corenet stem around its matrix products: convolutions whose patches do not overlap are
// products over rows, and BatchNorm and GELU stand between them.
//
// In: pixels `[b, h, w, 3]`; rows `[b · y · x, c]` that a product gave. Out: rows that the next
// product takes, and the ways back. Never: statistics of running means, those are the caller's.
//
// Of the first convolution a patch is 4 × 4 pixels that begin one before the image, by colour, line
// and column; of the others 2 × 2 rows, by line, column and channel.
#include "number.h"

namespace {

constexpr int SIDE = 4;
constexpr int PAD = 1;
constexpr int PATCH = COLOURS * SIDE * SIDE;

// A thread has a line of a patch in all colours.
template <typename T, typename P>
__device__ void stem_patches(const P* pixels, T* patches, Index b, Index height, Index width) {
  const unsigned grid_h = height / SIDE, grid_w = width / SIDE;
  const unsigned all = b * grid_h * grid_w * SIDE;
  unsigned piece = blockIdx.x * blockDim.x + threadIdx.x;
  for (; piece < all; piece += gridDim.x * blockDim.x) {
    const unsigned line = piece % SIDE, row = piece / SIDE;
    const unsigned grid_x = row % grid_w, rest = row / grid_w;
    const unsigned grid_y = rest % grid_h, image = rest / grid_h;
    const int y = static_cast<int>(grid_y * SIDE + line) - PAD;
    T* to = patches + Index(row) * PATCH + line * SIDE;
#pragma unroll
    for (int at = 0; at < SIDE; ++at) {
      const int x = static_cast<int>(grid_x * SIDE) + at - PAD;
      const bool is_inside = y >= 0 && x >= 0;
      const P* from = pixels + ((Index(image) * height + y) * width + x) * COLOURS;
#pragma unroll
      for (int colour = 0; colour < COLOURS; ++colour) {
        const float value = is_inside ? unit(from[colour]) : 0.0f;
        to[colour * SIDE * SIDE + at] = narrowed<T>(value);
      }
    }
  }
}

// A thread has a pixel. The last line and column belong to no patch.
template <typename T>
__device__ void
stem_patches_back(const T* gradient, T* pixels, Index b, Index height, Index width) {
  const unsigned grid_h = height / SIDE, grid_w = width / SIDE;
  const unsigned all = b * height * width;
  unsigned pixel = blockIdx.x * blockDim.x + threadIdx.x;
  for (; pixel < all; pixel += gridDim.x * blockDim.x) {
    const unsigned x = pixel % unsigned(width) + PAD, rest = pixel / unsigned(width);
    const unsigned y = rest % unsigned(height) + PAD, image = rest / unsigned(height);
    const unsigned grid_y = y / SIDE, grid_x = x / SIDE;
    const bool is_inside = grid_y < grid_h && grid_x < grid_w;
    const Index row = (Index(image) * grid_h + grid_y) * grid_w + grid_x;
    const T* from = gradient + row * PATCH + y % SIDE * SIDE + x % SIDE;
#pragma unroll
    for (int colour = 0; colour < COLOURS; ++colour) {
      pixels[Index(pixel) * COLOURS + colour] =
          narrowed<T>(is_inside ? widened(from[colour * SIDE * SIDE]) : 0.0f);
    }
  }
}

template <typename T>
__device__ void square_off(
    const T* matrix,
    const float* mean,
    float* partials,
    Index rows,
    Index columns,
    bool is_wide) {
  const Lane lane(columns);
  float means[EIGHT], sums[EIGHT] = {};
  load(means, mean + lane.from, lane.count, is_wide);
  for_own_rows(rows, [&](Index row) {
    float values[EIGHT];
    load(values, matrix + row * columns + lane.from, lane.count, is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      const float off = values[at] - means[at];
      sums[at] += off * off;
    }
  });
  write_column_sums(partials, sums, lane.start, columns, columns);
}

// Where row `row` of a grid of `grid_h` × `grid_w` stands among patches of 2 × 2 rows, in rows.
__device__ inline Index place_in_patches(unsigned row, unsigned grid_h, unsigned grid_w) {
  const unsigned x = row % grid_w, rest = row / grid_w;
  const unsigned y = rest % grid_h, image = rest / grid_h;
  const Index patch = (Index(image) * (grid_h / 2) + y / 2) * (grid_w / 2) + x / 2;
  return patch * 4 + y % 2 * 2 + x % 2;
}

// What eight columns are normalised by: `(x − mean) · rstd · weight + bias`.
struct Affine {
  float mean[EIGHT], rstd[EIGHT], weight[EIGHT], bias[EIGHT];

  // `vectors` are the four side by side, `[4, columns]`.
  __device__ Affine(const float* vectors, const Lane& lane, Index columns, bool is_wide) {
    load(mean, vectors + lane.from, lane.count, is_wide);
    load(rstd, vectors + columns + lane.from, lane.count, is_wide);
    load(weight, vectors + 2 * columns + lane.from, lane.count, is_wide);
    load(bias, vectors + 3 * columns + lane.from, lane.count, is_wide);
  }

  __device__ float normal(float x, int at) const {
    return (x - mean[at]) * rstd[at];
  }

  __device__ float of_normal(float normal, int at) const {
    return normal * weight[at] + bias[at];
  }
};

template <typename T>
__device__ inline float gelu_of(float z) {
  return z * normal_at<T>(z).below;
}

template <typename T>
__device__ inline float slope_of(float z) {
  const Normal normal = normal_at<T>(z);
  return normal.below + z * normal.density;
}

template <typename T>
__device__ void normal_gelu(
    const T* x,
    const float* vectors,
    T* patches,
    Index rows,
    unsigned grid_h,
    unsigned grid_w,
    Index columns,
    bool is_wide) {
  const Lane lane(columns);
  const Affine affine(vectors, lane, columns, is_wide);
  for_own_rows(rows, [&](Index row) {
    float values[EIGHT];
    load(values, x + row * columns + lane.from, lane.count, is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      const float normal = affine.normal(values[at], at);
      values[at] = gelu_of<T>(affine.of_normal(normal, at));
    }
    const Index place = place_in_patches(row, grid_h, grid_w);
    store(patches + place * columns + lane.from, values, lane.count, is_wide);
  });
}

template <typename T>
__device__ void normal_gelu_sums(
    const T* x,
    const T* gradient,
    const float* vectors,
    float* partials,
    Index rows,
    unsigned grid_h,
    unsigned grid_w,
    Index columns,
    bool is_wide) {
  const Lane lane(columns);
  const Affine affine(vectors, lane, columns, is_wide);
  float of_weight[EIGHT] = {}, of_bias[EIGHT] = {};
  for_own_rows(rows, [&](Index row) {
    float values[EIGHT], pull[EIGHT];
    load(values, x + row * columns + lane.from, lane.count, is_wide);
    const Index place = place_in_patches(row, grid_h, grid_w);
    load(pull, gradient + place * columns + lane.from, lane.count, is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      const float normal = affine.normal(values[at], at);
      const float of_z = pull[at] * slope_of<T>(affine.of_normal(normal, at));
      of_weight[at] += of_z * normal;
      of_bias[at] += of_z;
    }
  });
  write_column_sums(partials, of_weight, lane.start, columns, 2 * columns);
  write_column_sums(partials + columns, of_bias, lane.start, columns, 2 * columns);
}

template <typename T>
__device__ void normal_gelu_back(
    T* x,
    const T* gradient,
    const float* vectors,
    const float* sums,
    float each,
    Index rows,
    unsigned grid_h,
    unsigned grid_w,
    Index columns,
    bool is_wide) {
  const Lane lane(columns);
  const Affine affine(vectors, lane, columns, is_wide);
  float turn[EIGHT], shift[EIGHT];
  load(turn, sums + lane.from, lane.count, is_wide);
  load(shift, sums + columns + lane.from, lane.count, is_wide);
  for_own_rows(rows, [&](Index row) {
    float values[EIGHT], pull[EIGHT];
    load(values, x + row * columns + lane.from, lane.count, is_wide);
    const Index place = place_in_patches(row, grid_h, grid_w);
    load(pull, gradient + place * columns + lane.from, lane.count, is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      const float normal = affine.normal(values[at], at);
      const float of_z = pull[at] * slope_of<T>(affine.of_normal(normal, at));
      const float centred = of_z - (shift[at] + normal * turn[at]) * each;
      values[at] = centred * affine.weight[at] * affine.rstd[at];
    }
    store(x + row * columns + lane.from, values, lane.count, is_wide);
  });
}

} // namespace

// Pixels 0…1 → rows of the first product, `[b · h/4 · w/4, 48]`.
#define STEM_PATCHES(NAME, T, P)                                                                 \
  extern "C" __global__ void NAME(                                                               \
      const P* pixels, T* patches, Index b, Index height, Index width) {                         \
    stem_patches<T>(pixels, patches, b, height, width);                                          \
  }

STEM_PATCHES(stem_patches_f32, float, float)
STEM_PATCHES(stem_patches_bf16, bf16, bf16)
STEM_PATCHES(stem_patches_of_bytes_f32, float, unsigned char)
STEM_PATCHES(stem_patches_of_bytes_bf16, bf16, unsigned char)

// Gradient of these rows → of the pixels.
#define STEM_PATCHES_BACK(NAME, T)                                                               \
  extern "C" __global__ void NAME(                                                               \
      const T* gradient, T* pixels, Index b, Index height, Index width) {                        \
    stem_patches_back<T>(gradient, pixels, b, height, width);                                    \
  }

STEM_PATCHES_BACK(stem_patches_back_f32, float)
STEM_PATCHES_BACK(stem_patches_back_bf16, bf16)

// Sums over rows of the square of how far numbers are from `mean`, `[gridDim.y, columns]`.
#define SQUARE_OFF(NAME, T)                                                                      \
  extern "C" __global__ void NAME(                                                               \
      const T* matrix, const float* mean, float* partials, Index rows, Index columns,            \
      Index is_wide) {                                                                           \
    square_off<T>(matrix, mean, partials, rows, columns, is_wide);                               \
  }

SQUARE_OFF(square_off_f32, float)
SQUARE_OFF(square_off_bf16, bf16)

// Rows → normalised by `vectors` (mean, 1 ÷ deviation, weight, bias), GELU, as rows of the next
// product.
#define NORMAL_GELU(NAME, T)                                                                     \
  extern "C" __global__ void NAME(                                                               \
      const T* x, const float* vectors, T* patches, Index rows, Index grid_h, Index grid_w,      \
      Index columns, Index is_wide) {                                                            \
    normal_gelu<T>(x, vectors, patches, rows, grid_h, grid_w, columns, is_wide);                 \
  }

NORMAL_GELU(normal_gelu_f32, float)
NORMAL_GELU(normal_gelu_bf16, bf16)

// Gradient of the next product's rows → shares of the gradients of weight and bias,
// `[gridDim.y, 2, columns]`.
#define NORMAL_GELU_SUMS(NAME, T)                                                                \
  extern "C" __global__ void NAME(                                                               \
      const T* x, const T* gradient, const float* vectors, float* partials, Index rows,          \
      Index grid_h, Index grid_w, Index columns, Index is_wide) {                                \
    normal_gelu_sums<T>(                                                                         \
        x, gradient, vectors, partials, rows, grid_h, grid_w, columns, is_wide);                 \
  }

NORMAL_GELU_SUMS(normal_gelu_sums_f32, float)
NORMAL_GELU_SUMS(normal_gelu_sums_bf16, bf16)

// With these gradients of all rows that were normalised together, `sums [2, columns]`, and with 1 ÷
// their number, `x` becomes its own gradient.
#define NORMAL_GELU_BACK(NAME, T)                                                                \
  extern "C" __global__ void NAME(                                                               \
      T* x, const T* gradient, const float* vectors, const float* sums, float each, Index rows,  \
      Index grid_h, Index grid_w, Index columns, Index is_wide) {                                \
    normal_gelu_back<T>(                                                                         \
        x, gradient, vectors, sums, each, rows, grid_h, grid_w, columns, is_wide);               \
  }

NORMAL_GELU_BACK(normal_gelu_back_f32, float)
NORMAL_GELU_BACK(normal_gelu_back_bf16, bf16)
