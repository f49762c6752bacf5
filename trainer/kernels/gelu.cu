// GELU, and its way back with the sum over rows that is the gradient of the bias before it.
//
// In: what a matrix product with its bias gave. Out: x Φ(x), as ATen's `gelu` without
// approximation: to the last bits in float32; for bf16 by a formula whose error, 1.5e-7, is far
// below what rounding takes. Never: keeps what it can compute again.
#include "number.h"

namespace {

template <typename T>
__device__ void gelu(const T* hidden, T* active, Index numbers, bool is_wide) {
  const Index step = Index(gridDim.x) * blockDim.x * EIGHT;
  Index from = (Index(blockIdx.x) * blockDim.x + threadIdx.x) * EIGHT;
  for (; from < numbers; from += step) {
    const int count = count_of(from, numbers);
    float values[EIGHT];
    load(values, hidden + from, count, is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      values[at] *= normal_at<T>(values[at]).below;
    }
    store(active + from, values, count, is_wide);
  }
}

template <typename T>
__device__ void
gelu_back(T* hidden, T* gradient, float* partials, Index rows, Index columns, bool is_wide) {
  const Lane lane(columns);
  float sums[EIGHT] = {};
  for_own_rows(rows, [&](Index row) {
    const Index place = row * columns + lane.from;
    float values[EIGHT], pull[EIGHT];
    load(values, hidden + place, lane.count, is_wide);
    load(pull, gradient + place, lane.count, is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      const float x = values[at];
      const Normal normal = normal_at<T>(x);
      values[at] = x * normal.below;
      pull[at] *= normal.below + x * normal.density;
      sums[at] += widened(narrowed<T>(pull[at]));
    }
    store(hidden + place, values, lane.count, is_wide);
    store(gradient + place, pull, lane.count, is_wide);
  });
  write_column_sums(partials, sums, lane.start, columns, columns);
}

} // namespace

#define GELU(NAME, T)                                                                            \
  extern "C" __global__ void NAME(const T* hidden, T* active, Index numbers, Index is_wide) {    \
    gelu<T>(hidden, active, numbers, is_wide);                                                   \
  }

GELU(gelu_f32, float)
GELU(gelu_bf16, bf16)

// `hidden` becomes what GELU gives of it, `gradient` of that the one of `hidden`; their sums over
// rows, `[gridDim.y, columns]`, are the gradient of the bias.
#define GELU_BACK(NAME, T)                                                                       \
  extern "C" __global__ void NAME(                                                               \
      T* hidden, T* gradient, float* partials, Index rows, Index columns, Index is_wide) {       \
    gelu_back<T>(hidden, gradient, partials, rows, columns, is_wide);                            \
  }

GELU_BACK(gelu_back_f32, float)
GELU_BACK(gelu_back_bf16, bf16)
