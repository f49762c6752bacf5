// The global norm of the gradient, and the update of optim.rs and ema.rs in one pass.
//
// In: the flat gradient, weights, moments, average. Out: the same after a step, and the weights
// rounded to bf16; nothing but the verdict where the norm is no finite number. Never: asks the
// host.
#include "number.h"

namespace {

// The verdict of a step, three floats on the device.
enum { NORM = 0, ACCEPTED = 1, SCALE = 2 };

// As ATen's `lerp`.
__device__ inline float lerp(float from, float to, float share) {
  return share < 0.5f ? from + share * (to - from) : to - (to - from) * (1.0f - share);
}

struct Rates {
  float lr;
  float decay;
  float share1;
  float share2;
  float root_scale;
  float eps;
  float ema_share;
  float scale;
};

__device__ inline void adamw_of(
    float& weight,
    float gradient,
    float& mean,
    float& mean_square,
    float& average,
    const Rates& rates) {
  gradient *= rates.scale;
  mean = lerp(mean, gradient, rates.share1);
  mean_square = lerp(mean_square, gradient * gradient, rates.share2);
  const float root = sqrtf(mean_square) * rates.root_scale + rates.eps;
  weight = weight * (1.0f - rates.lr * rates.decay) - rates.lr * (mean / root);
  average = lerp(average, weight, rates.ema_share);
}

} // namespace

// Sums of squares, one for each block. All blocks have as many threads.
extern "C" __global__ void
square_sum(const float* numbers, float* partials, Index count, Index is_wide) {
  const Index step = Index(gridDim.x) * blockDim.x * EIGHT;
  float sum[1] = {0.0f};
  Index from = (Index(blockIdx.x) * blockDim.x + threadIdx.x) * EIGHT;
  for (; from < count; from += step) {
    float values[EIGHT];
    load(values, numbers + from, count_of(from, count), is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      sum[0] += values[at] * values[at];
    }
  }
  block_sum(sum);
  if (threadIdx.x == 0) {
    partials[blockIdx.x] = sum[0];
  }
}

// One block: the norm of what `partials` are the squares of, whether it is a finite number (1 or 0)
// and what the gradient is clipped by. `limit` 0 is no limit.
extern "C" __global__ void
verdict(const float* partials, Index count, float limit, float eps, float* out) {
  float sum[1] = {0.0f};
  for (Index at = threadIdx.x; at < count; at += blockDim.x) {
    sum[0] += partials[at];
  }
  block_sum(sum);
  if (threadIdx.x == 0) {
    const float norm = sqrtf(sum[0]);
    const bool is_finite = norm <= 3.402823466e+38f;
    const float scale = limit > 0.0f ? fminf(1.0f, limit * (1.0f / (norm + eps))) : 1.0f;
    out[NORM] = norm;
    out[ACCEPTED] = is_finite ? 1.0f : 0.0f;
    out[SCALE] = is_finite ? scale : 0.0f;
  }
}

// One step of AdamW over `count` floats, if the verdict accepts it. `average` and `narrow` may be
// null. `root_scale` is bias1 ÷ √bias2 and `eps` is ε · bias1, as in optim.rs.
extern "C" __global__ void adamw(
    float* weights,
    const float* gradient,
    float* means,
    float* mean_squares,
    float* averages,
    bf16* narrow,
    const float* verdict,
    Index count,
    float lr,
    float decay,
    float share1,
    float share2,
    float root_scale,
    float eps,
    float ema_share,
    Index is_wide) {
  if (verdict[ACCEPTED] == 0.0f) {
    return;
  }
  const Rates rates = {lr, decay, share1, share2, root_scale, eps, ema_share, verdict[SCALE]};
  const Index step = Index(gridDim.x) * blockDim.x * EIGHT;
  Index from = (Index(blockIdx.x) * blockDim.x + threadIdx.x) * EIGHT;
  for (; from < count; from += step) {
    const int here = count_of(from, count);
    float weight[EIGHT], pull[EIGHT], mean[EIGHT], mean_square[EIGHT], average[EIGHT] = {};
    load(weight, weights + from, here, is_wide);
    load(pull, gradient + from, here, is_wide);
    load(mean, means + from, here, is_wide);
    load(mean_square, mean_squares + from, here, is_wide);
    if (averages != nullptr) {
      load(average, averages + from, here, is_wide);
    }
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      adamw_of(weight[at], pull[at], mean[at], mean_square[at], average[at], rates);
    }
    store(weights + from, weight, here, is_wide);
    store(means + from, mean, here, is_wide);
    store(mean_squares + from, mean_square, here, is_wide);
    if (averages != nullptr) {
      store(averages + from, average, here, is_wide);
    }
    if (narrow != nullptr) {
      store(narrow + from, weight, here, is_wide);
    }
  }
}
