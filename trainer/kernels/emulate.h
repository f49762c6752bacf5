// What CUDA has and C++ has not, so that the text of the kernels runs on a CPU, for tests.
//
// In: a launch. Out: what the kernel does, block after block; the threads of a block take turns at
// `__syncthreads` and shuffles, so shared memory and warps are what they are on a device. Never:
// two blocks or two threads at once; a barrier that only some threads of a block reach.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __launch_bounds__(threads)
// Blocks run one after another, so one place of memory serves all.
#define __shared__ static

struct Dim {
  unsigned x, y, z;
};

struct uint4 {
  unsigned x, y, z, w;
};

namespace emulated {

// Of the thread whose turn it is.
extern Dim thread, block, block_size, grid_size;

// Waits until all threads of the block are here.
void wait_block();

// Gives `bits` to the warp and takes those of the lane `distance` away, by exclusive or.
unsigned exchange(unsigned bits, int distance);

} // namespace emulated

#define threadIdx ::emulated::thread
#define blockIdx ::emulated::block
#define blockDim ::emulated::block_size
#define gridDim ::emulated::grid_size

inline void __syncthreads() {
  emulated::wait_block();
}

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float __shfl_xor_sync(unsigned, float x, int distance) {
  return __uint_as_float(emulated::exchange(__float_as_uint(x), distance));
}

inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

inline float rsqrtf(float x) {
  return 1.0f / std::sqrt(x);
}

inline float __fdividef(float x, float y) {
  return x / y;
}

// Newton's steps from Winitzki's approximation: as near as a float is.
inline float erfinvf(float y) {
  const double log = std::log1p(-double(y) * y), half = 4.33074675078481 + 0.5 * log;
  double x = std::copysign(std::sqrt(std::sqrt(half * half - log / 0.147) - half), y);
  for (int step = 0; step < 3; ++step) {
    x -= (std::erf(x) - y) * 0.886226925452758 * std::exp(x * x);
  }
  return static_cast<float>(x);
}

// glibc declares a function of this name.
#define __expf std::exp
