// RangeAugment: each image mixed with noise and a shade, how far that is from what came in, and the
// gradient of the mix.
//
// In: pixels `[b, p, 3]`, bytes or floats 0…1; of each image a seed and what it needs; its mix: the
// share of the image, that of the noise, and what is added to each colour. Out: pixels in 0…1, sums
// by image. Never: keeps noise or a mixed image for the way back, both are made again.
//
// A block has an image, a thread pixels of it.
#include "number.h"

namespace {

using Bits = unsigned long long;

// What an image needs, in bits: `Needs` of augment.rs.
constexpr long long IMAGE_MEAN = 1, NOISE_MEAN = 2, NOISE = 4;
constexpr int MIX = 2 + COLOURS;

// Number `at` of the noise of a seed: SplitMix64's finaliser, of whose bits 24 make a uniform
// number of −1…1 without its ends, and the inverse of the error function a normal one.
__device__ inline float noise_of(Bits seed, Bits at) {
  constexpr float STEP = 1.0f / 8388608.0f, ROOT_2 = 1.41421356237309505f;
  Bits bits = seed + (at + 1) * 0x9e3779b97f4a7c15ull;
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
  bits ^= bits >> 31;
  return erfinvf(static_cast<float>(bits >> 40) * STEP + (0.5f * STEP - 1.0f)) * ROOT_2;
}

// An image: its pixels, and where its noise comes from.
template <typename P>
struct Source {
  const P* pixels;
  Index count;
  Bits seed;
  long long needs;

  __device__ Source(const P* all, const long long* seeds_and_needs, Index image, Index count)
      : pixels(all + image * count * COLOURS),
        count(count),
        seed(static_cast<Bits>(seeds_and_needs[2 * image])),
        needs(seeds_and_needs[2 * image + 1]) {}

  __device__ float of_image(Index pixel, int colour) const {
    return unit(pixels[pixel * COLOURS + colour]);
  }

  // Colours one after another, as images of PyTorch lie.
  __device__ float of_noise(Index pixel, int colour) const {
    return noise_of(seed, static_cast<Bits>(colour * count + pixel));
  }
};

// Calls `work` with each image that falls to this block.
template <typename P, typename Work>
__device__ inline void
for_own_images(const P* pixels, const long long* seeds_and_needs, Index b, Index count, Work work) {
  for (Index image = blockIdx.x; image < b; image += gridDim.x) {
    work(image, Source<P>(pixels, seeds_and_needs, image, count));
  }
}

// What an image is mixed by.
struct Mix {
  float image, noise, shade[COLOURS];

  __device__ explicit Mix(const float* of_image) : image(of_image[0]), noise(of_image[1]) {
#pragma unroll
    for (int colour = 0; colour < COLOURS; ++colour) {
      shade[colour] = of_image[2 + colour];
    }
  }
};

// A number of the image, its noise, and both mixed, before and after they are held in 0…1.
struct Mixed {
  float x, noise, free, held;

  // What is no number stays none.
  template <typename P>
  __device__ Mixed(const Source<P>& source, const Mix& mix, Index pixel, int colour)
      : x(source.of_image(pixel, colour)),
        noise(source.needs & NOISE ? source.of_noise(pixel, colour) : 0.0f),
        free(mix.image * x + mix.noise * noise + mix.shade[colour]),
        held(free < 0.0f ? 0.0f : free > 1.0f ? 1.0f : free) {}

  __device__ bool is_inside() const {
    return free >= 0.0f && free <= 1.0f;
  }
};

template <typename P>
__device__ void
range_sums(const P* pixels, const long long* seeds_and_needs, float* sums, Index b, Index count) {
  for_own_images(pixels, seeds_and_needs, b, count, [&](Index image, const Source<P>& source) {
    float own[2 * COLOURS] = {};
    const bool wants_image = source.needs & IMAGE_MEAN, wants_noise = source.needs & NOISE_MEAN;
    for (Index pixel = threadIdx.x; (wants_image || wants_noise) && pixel < count;
         pixel += blockDim.x) {
#pragma unroll
      for (int colour = 0; colour < COLOURS; ++colour) {
        own[colour] += wants_image ? source.of_image(pixel, colour) : 0.0f;
        own[COLOURS + colour] += wants_noise ? source.of_noise(pixel, colour) : 0.0f;
      }
    }
    block_sum(own);
    if (threadIdx.x == 0) {
#pragma unroll
      for (int at = 0; at < 2 * COLOURS; ++at) {
        sums[image * 2 * COLOURS + at] = own[at];
      }
    }
  });
}

template <typename T, typename P>
__device__ void range_mix(
    const P* pixels,
    const long long* seeds_and_needs,
    const float* mixes,
    T* out,
    float* squares,
    Index b,
    Index count) {
  for_own_images(pixels, seeds_and_needs, b, count, [&](Index image, const Source<P>& source) {
    const Mix mix(mixes + image * MIX);
    T* to = out + image * count * COLOURS;
    float own[1] = {};
    for (Index pixel = threadIdx.x; pixel < count; pixel += blockDim.x) {
#pragma unroll
      for (int colour = 0; colour < COLOURS; ++colour) {
        const Mixed mixed(source, mix, pixel, colour);
        const float off = mixed.held - mixed.x;
        own[0] += off * off;
        to[pixel * COLOURS + colour] = narrowed<T>(mixed.held);
      }
    }
    block_sum(own);
    if (threadIdx.x == 0) {
      squares[image] = own[0];
    }
  });
}

template <typename T, typename P>
__device__ void range_back(
    const T* gradient,
    const P* pixels,
    const long long* seeds_and_needs,
    const float* mixes,
    const float* pulls,
    float* of_mixes,
    Index b,
    Index count) {
  for_own_images(pixels, seeds_and_needs, b, count, [&](Index image, const Source<P>& source) {
    const Mix mix(mixes + image * MIX);
    const T* from = gradient + image * count * COLOURS;
    const float pull = pulls[image];
    float own[MIX] = {};
    for (Index pixel = threadIdx.x; pixel < count; pixel += blockDim.x) {
#pragma unroll
      for (int colour = 0; colour < COLOURS; ++colour) {
        const Mixed mixed(source, mix, pixel, colour);
        const float of_held =
            widened(from[pixel * COLOURS + colour]) + pull * (mixed.held - mixed.x);
        const float of_free = mixed.is_inside() ? of_held : 0.0f;
        own[0] += of_free * mixed.x;
        own[1] += of_free * mixed.noise;
        own[2 + colour] += of_free;
      }
    }
    block_sum(own);
    if (threadIdx.x == 0) {
#pragma unroll
      for (int at = 0; at < MIX; ++at) {
        of_mixes[image * MIX + at] = own[at];
      }
    }
  });
}

} // namespace

// Sums over the pixels of an image and of its noise, `[b, 2, 3]`; 0 where nobody needs them.
#define RANGE_SUMS(NAME, P)                                                                      \
  extern "C" __global__ void NAME(                                                               \
      const P* pixels, const long long* seeds_and_needs, float* sums, Index b, Index count) {    \
    range_sums(pixels, seeds_and_needs, sums, b, count);                                         \
  }

RANGE_SUMS(range_sums_of_floats, float)
RANGE_SUMS(range_sums_of_bytes, unsigned char)

// Images → mixed by `mixes [b, 5]`, and the sum of the squares of how far they are from what they
// were, `[b]`.
#define RANGE_MIX(NAME, T, P)                                                                    \
  extern "C" __global__ void NAME(                                                               \
      const P* pixels, const long long* seeds_and_needs, const float* mixes, T* out,             \
      float* squares, Index b, Index count) {                                                    \
    range_mix<T>(pixels, seeds_and_needs, mixes, out, squares, b, count);                        \
  }

RANGE_MIX(range_mix_of_floats_f32, float, float)
RANGE_MIX(range_mix_of_floats_bf16, bf16, float)
RANGE_MIX(range_mix_of_bytes_f32, float, unsigned char)
RANGE_MIX(range_mix_of_bytes_bf16, bf16, unsigned char)

// Gradient of the mixed images, and for each image how hard its distance pulls → gradient of the
// mixes, `[b, 5]`.
#define RANGE_BACK(NAME, T, P)                                                                   \
  extern "C" __global__ void NAME(                                                               \
      const T* gradient, const P* pixels, const long long* seeds_and_needs, const float* mixes,  \
      const float* pulls, float* of_mixes, Index b, Index count) {                               \
    range_back<T>(gradient, pixels, seeds_and_needs, mixes, pulls, of_mixes, b, count);          \
  }

RANGE_BACK(range_back_of_floats_f32, float, float)
RANGE_BACK(range_back_of_floats_bf16, bf16, float)
RANGE_BACK(range_back_of_bytes_f32, float, unsigned char)
RANGE_BACK(range_back_of_bytes_bf16, bf16, unsigned char)
