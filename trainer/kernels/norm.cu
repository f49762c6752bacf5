// LayerNorm with the addition before it, and its way back with what follows it there.
//
// In: float32 tokens, and what a matrix product gave. Out: as of `LayerNorm` in model/block.rs:
// float32 inside, rounded once. Never: more than 5120 columns, eight to a thread.
//
// A block takes one row after another; a thread has the same eight columns of each.
#include "number.h"

namespace {

// More would leave a thread too few registers for what it keeps of its columns.
constexpr int THREADS_MAX = 640;

// What a thread knows of its columns.
struct Columns {
  Index from;
  int count;

  __device__ Columns(Index width)
      : from(Index(threadIdx.x) * EIGHT), count(count_of(from, width)) {}
};

template <typename T>
__device__ void add_norm(
    const float* x,
    Index x_stride,
    const T* added,
    float* total,
    T* normed,
    float* mean,
    float* rstd,
    const float* weight,
    const float* bias,
    Index rows,
    Index width,
    float eps,
    bool is_wide) {
  const Columns columns(width);
  float scale[EIGHT], shift[EIGHT];
  load(scale, weight + columns.from, columns.count, is_wide);
  load(shift, bias + columns.from, columns.count, is_wide);
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) {
    const Index at_row = row * width + columns.from;
    float values[EIGHT];
    load(values, x + row * x_stride + columns.from, columns.count, is_wide);
    if (added != nullptr) {
      float more[EIGHT];
      load(more, added + at_row, columns.count, is_wide);
#pragma unroll
      for (int at = 0; at < EIGHT; ++at) {
        values[at] += more[at];
      }
      store(total + at_row, values, columns.count, is_wide);
    }
    float sum[1] = {0.0f};
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      sum[0] += values[at];
    }
    block_sum(sum);
    const float row_mean = sum[0] / width;
    float square[1] = {0.0f};
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      const float off = at < columns.count ? values[at] - row_mean : 0.0f;
      square[0] += off * off;
    }
    block_sum(square);
    const float row_rstd = rsqrtf(square[0] / width + eps);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      values[at] = (values[at] - row_mean) * row_rstd * scale[at] + shift[at];
    }
    store(normed + at_row, values, columns.count, is_wide);
    if (threadIdx.x == 0) {
      mean[row] = row_mean;
      rstd[row] = row_rstd;
    }
  }
}

template <typename T>
__device__ void norm_back(
    T* gradient,
    const float* x,
    const float* mean,
    const float* rstd,
    const float* weight,
    const float* bias,
    float* stream,
    T* narrow_stream,
    float* partials,
    Index rows,
    Index width,
    bool is_wide) {
  const Columns columns(width);
  float scale[EIGHT], shift[EIGHT];
  load(scale, weight + columns.from, columns.count, is_wide);
  load(shift, bias + columns.from, columns.count, is_wide);
  float of_weight[EIGHT] = {}, of_bias[EIGHT] = {}, of_stream[EIGHT] = {};
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) {
    const Index at_row = row * width + columns.from;
    const float row_mean = mean[row], row_rstd = rstd[row];
    float normal[EIGHT], pull[EIGHT], out[EIGHT];
    load(normal, x + at_row, columns.count, is_wide);
    load(pull, gradient + at_row, columns.count, is_wide);
    load(out, stream + at_row, columns.count, is_wide);
    float sums[2] = {0.0f, 0.0f};
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      normal[at] = at < columns.count ? (normal[at] - row_mean) * row_rstd : 0.0f;
      of_weight[at] += pull[at] * normal[at];
      of_bias[at] += pull[at];
      pull[at] *= scale[at];
      sums[0] += pull[at];
      sums[1] += pull[at] * normal[at];
    }
    block_sum(sums);
    const float mean_pull = sums[0] / width, mean_turn = sums[1] / width;
    float again[EIGHT];
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      out[at] += row_rstd * (pull[at] - mean_pull - normal[at] * mean_turn);
      of_stream[at] += at < columns.count ? widened(narrowed<T>(out[at])) : 0.0f;
      again[at] = normal[at] * scale[at] + shift[at];
    }
    store(stream + at_row, out, columns.count, is_wide);
    store(narrow_stream + at_row, out, columns.count, is_wide);
    store(gradient + at_row, again, columns.count, is_wide);
  }
  float* own = partials + Index(blockIdx.x) * 3 * width + columns.from;
  store(own, of_weight, columns.count, is_wide);
  store(own + width, of_bias, columns.count, is_wide);
  store(own + 2 * width, of_stream, columns.count, is_wide);
}

} // namespace

// `x [rows, width]`, whose rows lie `x_stride` apart, plus `added` if that is not null, which gives
// `total`; normalised: `normed`, with the mean and 1 ÷ deviation of each row.
#define ADD_NORM(NAME, T)                                                                        \
  extern "C" __global__ void __launch_bounds__(THREADS_MAX) NAME(                                \
      const float* x, Index x_stride, const T* added, float* total, T* normed, float* mean,      \
      float* rstd, const float* weight, const float* bias, Index rows, Index width, float eps,   \
      Index is_wide) {                                                                           \
    add_norm<T>(                                                                                 \
        x, x_stride, added, total, normed, mean, rstd, weight, bias, rows, width, eps, is_wide); \
  }

ADD_NORM(add_norm_f32, float)
ADD_NORM(add_norm_bf16, bf16)

// The way back. `gradient`, that of `normed`, becomes `normed` once more; `stream`, the gradient of
// what was added up, gets that of the norm added, and `narrow_stream` is the same, rounded. Row
// `blockIdx.x` of `partials [blocks, 3, width]` becomes the block's share of the gradients of
// weight and bias and of the sum of `narrow_stream` over rows.
#define NORM_BACK(NAME, T)                                                                       \
  extern "C" __global__ void __launch_bounds__(THREADS_MAX) NAME(                                \
      T* gradient, const float* x, const float* mean, const float* rstd, const float* weight,    \
      const float* bias, float* stream, T* narrow_stream, float* partials, Index rows,           \
      Index width, Index is_wide) {                                                              \
    norm_back<T>(                                                                                \
        gradient, x, mean, rstd, weight, bias, stream, narrow_stream, partials, rows, width,     \
        is_wide);                                                                                \
  }

NORM_BACK(norm_back_f32, float)
NORM_BACK(norm_back_bf16, bf16)
