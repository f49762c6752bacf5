// The losses of loss.rs and their gradients, in place on the logits.
//
// In: logits `[b, v]`; labels of row i: `labels[offsets[i] … offsets[i + 1]]`, counted from
// `offsets[0]`; weights of rows; what to divide by, on the device. Out: the loss of each row,
// weighted and divided; the logits become its gradient. Never: a dense target.
//
// A block has a row. A label that a row has twice counts twice, as there.
#include "number.h"

namespace {

struct Row {
  Index labels_from;
  Index labels_end;
  float weight;
};

__device__ inline Row
row_of(const Index* offsets, const float* weights, const float* divisor, Index row) {
  const Index first = offsets[0];
  return {offsets[row] - first, offsets[row + 1] - first, weights[row] / divisor[0]};
}

// The logits of the positives are read before any logit becomes a gradient.
template <typename T>
__device__ void keep_positives(
    const T* logits,
    const Index* labels,
    float* kept,
    const Row& row) {
  for (Index at = row.labels_from + threadIdx.x; at < row.labels_end; at += blockDim.x) {
    kept[at] = widened(logits[labels[at]]);
  }
}

// How much of the labels `from … end` falls on label `label`.
__device__ inline float
share_of(const Index* labels, const float* idf, Index from, Index end, Index label) {
  float share = 0.0f;
  for (Index at = from; at < end; ++at) {
    if (labels[at] == label) {
      share += idf == nullptr ? 1.0f : idf[label];
    }
  }
  return share;
}

__device__ inline float softplus(float z) {
  return fmaxf(z, 0.0f) + log1pf(expf(-fabsf(z)));
}

__device__ inline float sigmoid(float z) {
  return 1.0f / (1.0f + expf(-z));
}

template <typename T>
__device__ void bce(
    T* logits,
    const Index* offsets,
    const Index* labels,
    const float* weights,
    const float* divisor,
    float* kept,
    float* losses,
    Index v,
    float smoothing,
    bool is_wide) {
  const Row row = row_of(offsets, weights, divisor, blockIdx.x);
  T* own = logits + Index(blockIdx.x) * v;
  keep_positives(own, labels, kept, row);
  __syncthreads();
  float sums[1] = {0.0f};
  for_own_numbers(own, v, is_wide, [&](float(&values)[EIGHT], Index from, int count) {
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      sums[0] += at < count ? softplus(values[at]) : 0.0f;
      values[at] = sigmoid(values[at]) * row.weight;
    }
    store(own + from, values, count, is_wide);
  });
  __syncthreads();
  const float target = 1.0f - smoothing;
  for (Index at = row.labels_from + threadIdx.x; at < row.labels_end; at += blockDim.x) {
    const Index label = labels[at];
    const float times = share_of(labels, nullptr, row.labels_from, row.labels_end, label);
    sums[0] -= target * kept[at];
    own[label] = narrowed<T>((sigmoid(kept[at]) - target * times) * row.weight);
  }
  block_sum(sums);
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = sums[0] * row.weight;
  }
}

template <typename T>
__device__ void softmax(
    T* logits,
    const Index* offsets,
    const Index* labels,
    const float* weights,
    const float* divisor,
    const float* idf,
    float* kept,
    float* losses,
    Index v,
    float smoothing,
    bool is_wide) {
  const Row row = row_of(offsets, weights, divisor, blockIdx.x);
  T* own = logits + Index(blockIdx.x) * v;
  keep_positives(own, labels, kept, row);
  __syncthreads();

  // --- the largest logit, then the sum of powers and of logits -----------------------------------
  float largest = __uint_as_float(0xff800000u);
  for_own_numbers(own, v, is_wide, [&](float(&values)[EIGHT], Index, int count) {
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      largest = at < count ? fmaxf(largest, values[at]) : largest;
    }
  });
  largest = block_max(largest);
  // fmaxf passes by what is no number; the sum does not.
  float sums[3] = {0.0f, 0.0f, 0.0f};
  for_own_numbers(own, v, is_wide, [&](float(&values)[EIGHT], Index, int count) {
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      sums[0] += at < count ? expf(values[at] - largest) : 0.0f;
      sums[1] += values[at];
    }
  });
  for (Index at = row.labels_from + threadIdx.x; at < row.labels_end; at += blockDim.x) {
    sums[2] += idf == nullptr ? 1.0f : idf[labels[at]];
  }
  block_sum(sums);
  const float total = sums[2];
  // Without a label of some weight there is no distribution to learn.
  const float weight = total > 0.0f ? row.weight : 0.0f;
  const float normaliser = largest + logf(sums[0]);
  const float target = 1.0f - smoothing, spread = smoothing / v;
  const float scale = total > 0.0f ? target / total : 0.0f;

  // --- the gradient ------------------------------------------------------------------------------
  for_own_numbers(own, v, is_wide, [&](float(&values)[EIGHT], Index from, int count) {
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      values[at] = (expf(values[at] - normaliser) - spread) * weight;
    }
    store(own + from, values, count, is_wide);
  });
  __syncthreads();
  float positive[1] = {0.0f};
  for (Index at = row.labels_from + threadIdx.x; at < row.labels_end; at += blockDim.x) {
    const Index label = labels[at];
    const float share = share_of(labels, idf, row.labels_from, row.labels_end, label);
    positive[0] += (idf == nullptr ? 1.0f : idf[label]) * kept[at];
    const float pull = expf(kept[at] - normaliser) - spread - scale * share;
    own[label] = narrowed<T>(pull * weight);
  }
  block_sum(positive);
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = (normaliser - scale * positive[0] - spread * sums[1]) * weight;
  }
}

} // namespace

// `kept` is room for the logits of all labels of all rows.
#define BCE(NAME, T)                                                                             \
  extern "C" __global__ void NAME(                                                               \
      T* logits, const Index* offsets, const Index* labels, const float* weights,                \
      const float* divisor, float* kept, float* losses, Index v, float smoothing,                \
      Index is_wide) {                                                                           \
    bce<T>(                                                                                      \
        logits, offsets, labels, weights, divisor, kept, losses, v, smoothing, is_wide);         \
  }

BCE(bce_f32, float)
BCE(bce_bf16, bf16)

#define SOFTMAX(NAME, T)                                                                         \
  extern "C" __global__ void NAME(                                                               \
      T* logits, const Index* offsets, const Index* labels, const float* weights,                \
      const float* divisor, const float* idf, float* kept, float* losses, Index v,               \
      float smoothing, Index is_wide) {                                                          \
    softmax<T>(                                                                                  \
        logits, offsets, labels, weights, divisor, idf, kept, losses, v, smoothing, is_wide);    \
  }

SOFTMAX(softmax_f32, float)
SOFTMAX(softmax_bf16, bf16)
