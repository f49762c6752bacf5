// What the kernels have in common: numbers of 16 and 32 bits, eight at a time, and sums of a block.
//
// In: pointers to device memory. Out: float32 in registers. Never: includes a header of CUDA, so
// that NVRTC needs none; adds floats in an order that is not fixed by the launch.
//
// `is_wide`: rows start on 16 bytes and their length is a multiple of eight, so that eight numbers
// are read at once; else they are read one by one, with the same result.
#pragma once

#ifdef CATLIP_EMULATED
#include "emulate.h"
#endif

using Index = long long;

// Threads that run in step.
constexpr int WARP = 32;
// Numbers that a thread works on at once.
constexpr int EIGHT = 8;
// Warps of a block at most: 1024 threads.
constexpr int WARPS_MAX = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// The upper half of a float32.
struct bf16 {
  unsigned short bits;
};

__device__ inline float widened(float x) {
  return x;
}

__device__ inline float widened(bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}

template <typename T>
__device__ T narrowed(float x);

template <>
__device__ inline float narrowed<float>(float x) {
  return x;
}

// To the nearest, ties to even; what is no number stays none.
template <>
__device__ inline bf16 narrowed<bf16>(float x) {
  bf16 narrow;
#ifdef CATLIP_EMULATED
  const unsigned bits = __float_as_uint(x);
  const unsigned rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  narrow.bits = static_cast<unsigned short>(x == x ? rounded >> 16 : 0x7fffu);
#else
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(x));
#endif
  return narrow;
}

// Colours of a pixel.
constexpr int COLOURS = 3;

// A number of an image in 0…1.
template <typename P>
__device__ inline float unit(P pixel) {
  return widened(pixel);
}

template <>
__device__ inline float unit<unsigned char>(unsigned char pixel) {
  return pixel / 255.0f;
}

// How many of the eight numbers from `from` on lie below `end`.
__device__ inline int count_of(Index from, Index end) {
  const Index left = end - from;
  return left <= 0 ? 0 : left < EIGHT ? static_cast<int>(left) : EIGHT;
}

__device__ inline void load_wide(float (&to)[EIGHT], const float* from) {
  const uint4* words = reinterpret_cast<const uint4*>(from);
  const uint4 low = words[0], high = words[1];
  to[0] = __uint_as_float(low.x), to[1] = __uint_as_float(low.y);
  to[2] = __uint_as_float(low.z), to[3] = __uint_as_float(low.w);
  to[4] = __uint_as_float(high.x), to[5] = __uint_as_float(high.y);
  to[6] = __uint_as_float(high.z), to[7] = __uint_as_float(high.w);
}

__device__ inline void load_wide(float (&to)[EIGHT], const bf16* from) {
  const uint4 words = *reinterpret_cast<const uint4*>(from);
  const unsigned each[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int at = 0; at < 4; ++at) {
    to[2 * at] = __uint_as_float(each[at] << 16);
    to[2 * at + 1] = __uint_as_float(each[at] & 0xffff0000u);
  }
}

__device__ inline void store_wide(float* to, const float (&from)[EIGHT]) {
  uint4* words = reinterpret_cast<uint4*>(to);
  words[0] = make_uint4(
      __float_as_uint(from[0]), __float_as_uint(from[1]), __float_as_uint(from[2]),
      __float_as_uint(from[3]));
  words[1] = make_uint4(
      __float_as_uint(from[4]), __float_as_uint(from[5]), __float_as_uint(from[6]),
      __float_as_uint(from[7]));
}

__device__ inline void store_wide(bf16* to, const float (&from)[EIGHT]) {
  unsigned each[4];
#pragma unroll
  for (int at = 0; at < 4; ++at) {
    const unsigned low = narrowed<bf16>(from[2 * at]).bits;
    const unsigned high = narrowed<bf16>(from[2 * at + 1]).bits;
    each[at] = low | (high << 16);
  }
  *reinterpret_cast<uint4*>(to) = make_uint4(each[0], each[1], each[2], each[3]);
}

// Reads `count` numbers, and zeros behind them.
template <typename T>
__device__ inline void load(float (&to)[EIGHT], const T* from, int count, bool is_wide) {
  if (is_wide && count == EIGHT) {
    load_wide(to, from);
    return;
  }
#pragma unroll
  for (int at = 0; at < EIGHT; ++at) {
    to[at] = at < count ? widened(from[at]) : 0.0f;
  }
}

// Calls `work` with the numbers of a row that fall to this thread, eight at a time, with where they
// begin and how many there are.
template <typename T, typename Work>
__device__ inline void for_own_numbers(const T* row, Index length, bool is_wide, Work work) {
  Index from = Index(threadIdx.x) * EIGHT;
  for (; from < length; from += Index(blockDim.x) * EIGHT) {
    const int count = count_of(from, length);
    float values[EIGHT];
    load(values, row + from, count, is_wide);
    work(values, from, count);
  }
}

// Writes `count` numbers.
template <typename T>
__device__ inline void store(T* to, const float (&from)[EIGHT], int count, bool is_wide) {
  if (is_wide && count == EIGHT) {
    store_wide(to, from);
    return;
  }
#pragma unroll
  for (int at = 0; at < EIGHT; ++at) {
    if (at < count) {
      to[at] = narrowed<T>(from[at]);
    }
  }
}

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    x += __shfl_xor_sync(ALL_LANES, x, distance);
  }
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
  }
  return x;
}

// Sums each of N numbers over the threads of the block, whose number is a multiple of a warp; every
// thread gets the sums.
template <int N>
__device__ inline void block_sum(float (&sums)[N]) {
  __shared__ float of_warps[N][WARPS_MAX];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const int num_warps = blockDim.x / WARP;
#pragma unroll
  for (int at = 0; at < N; ++at) {
    const float sum = warp_sum(sums[at]);
    if (lane == 0) {
      of_warps[at][warp] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int at = 0; at < N; ++at) {
    sums[at] = warp_sum(lane < num_warps ? of_warps[at][lane] : 0.0f);
  }
  // Nobody writes the next sums before all have read these.
  __syncthreads();
}

__device__ inline float block_max(float x) {
  __shared__ float of_warps[WARPS_MAX];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const float largest = warp_max(x);
  if (lane == 0) {
    of_warps[warp] = largest;
  }
  __syncthreads();
  const int num_warps = blockDim.x / WARP;
  const float all = warp_max(of_warps[lane < num_warps ? lane : 0]);
  __syncthreads();
  return all;
}

// Columns that a block of `COLUMN_THREADS` threads sums up, and the warps that share its rows.
constexpr int COLUMNS = WARP * EIGHT;
constexpr int COLUMN_WARPS = 8;
constexpr int COLUMN_THREADS = WARP * COLUMN_WARPS;

// The eight columns of a lane, of those that its block sums up.
struct Lane {
  // The first column of the block.
  Index start;
  Index from;
  int count;

  __device__ explicit Lane(Index columns)
      : start(Index(blockIdx.x) * COLUMNS),
        from(start + threadIdx.x % WARP * EIGHT),
        count(count_of(from, columns)) {}
};

// Calls `work` with each of `rows` rows that falls to this warp.
template <typename Work>
__device__ inline void for_own_rows(Index rows, Work work) {
  Index row = Index(blockIdx.y) * COLUMN_WARPS + threadIdx.x / WARP;
  for (; row < rows; row += Index(gridDim.y) * COLUMN_WARPS) {
    work(row);
  }
}

// Adds up what the warps of a block have of eight columns a lane, and writes the sums as row
// `blockIdx.y` of `partials`, `[gridDim.y, columns]`, whose rows lie `stride` apart. The block's
// first column is `start`.
__device__ inline void write_column_sums(
    float* partials,
    const float (&sums)[EIGHT],
    Index start,
    Index columns,
    Index stride) {
  __shared__ float of_warps[COLUMN_WARPS][COLUMNS];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
  for (int at = 0; at < EIGHT; ++at) {
    of_warps[warp][lane * EIGHT + at] = sums[at];
  }
  __syncthreads();
  const Index column = start + threadIdx.x;
  if (column < columns) {
    float sum = 0.0f;
#pragma unroll
    for (int other = 0; other < COLUMN_WARPS; ++other) {
      sum += of_warps[other][threadIdx.x];
    }
    partials[blockIdx.y * stride + column] = sum;
  }
  // Nobody writes the next sums before these are added up.
  __syncthreads();
}

// Φ(x) and the density φ(x).
struct Normal {
  float below;
  float density;
};

constexpr float INVERSE_ROOT_2 = 0.70710678118654752f;
constexpr float INVERSE_ROOT_2_PI = 0.39894228040143268f;

template <typename T>
__device__ inline Normal normal_at(float x);

template <>
__device__ inline Normal normal_at<float>(float x) {
  return {0.5f * (1.0f + erff(x * INVERSE_ROOT_2)), INVERSE_ROOT_2_PI * expf(-0.5f * x * x)};
}

// Abramowitz and Stegun 7.1.26: one exponential serves both. Its error, 1.5e-7, is far below what
// rounding to bf16 takes.
template <>
__device__ inline Normal normal_at<bf16>(float x) {
  const float distance = fabsf(x) * INVERSE_ROOT_2;
  const float t = __fdividef(1.0f, 1.0f + 0.3275911f * distance);
  const float power = __expf(-0.5f * x * x);
  const float series =
      ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t +
       0.254829592f) *
      t;
  const float beyond = 0.5f * series * power;
  return {x < 0.0f ? beyond : 1.0f - beyond, INVERSE_ROOT_2_PI * power};
}
