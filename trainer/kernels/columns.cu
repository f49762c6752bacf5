// Sums over rows in two steps, and the gradients of attention put side by side.
//
// In: matrices by rows. Out: partial sums, then gradients in float32, to which is added. Never:
// adds in another order for another run with the same launch.
#include "number.h"

namespace {

template <typename T>
__device__ void
column_sum(const T* matrix, float* partials, Index rows, Index columns, bool is_wide) {
  const Lane lane(columns);
  float sums[EIGHT] = {};
  for_own_rows(rows, [&](Index row) {
    float values[EIGHT];
    load(values, matrix + row * columns + lane.from, lane.count, is_wide);
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      sums[at] += values[at];
    }
  });
  write_column_sums(partials, sums, lane.start, columns, columns);
}

// A tensor `[b, a, t, k]` whose last side is dense.
template <typename T>
struct Heads {
  const T* start;
  Index image;
  Index head;
  Index token;

  // The first image's and token's number of a column of `[a · k]`.
  __device__ const T* column(unsigned column, unsigned head_width) const {
    return start + column / head_width * head + column % head_width;
  }
};

template <typename T>
__device__ void pack_heads(
    const Heads<T>& part0,
    const Heads<T>& part1,
    const Heads<T>& part2,
    T* packed,
    float* partials,
    Index rows,
    Index tokens,
    unsigned width,
    unsigned head_width,
    Index columns,
    bool is_wide) {
  const Lane lane(columns);
  const auto part_of = [&](unsigned column) -> const Heads<T>& {
    return column < width ? part0 : column < 2 * width ? part1 : part2;
  };
  const Heads<T> heads = part_of(lane.from);
  const T* first = heads.column(lane.from % width, head_width);
  float sums[EIGHT] = {};
  for_own_rows(rows, [&](Index row) {
    const unsigned image = unsigned(row) / unsigned(tokens);
    const unsigned token = unsigned(row) % unsigned(tokens);
    float values[EIGHT];
    if (is_wide && lane.count == EIGHT) {
      load_wide(values, first + image * heads.image + token * heads.token);
    } else {
#pragma unroll
      for (int at = 0; at < EIGHT; ++at) {
        // Eight columns may begin in one part or head and end in another.
        const unsigned column = at < lane.count ? lane.from + at : 0;
        const Heads<T>& own = part_of(column);
        const T* place = own.column(column % width, head_width);
        values[at] =
            at < lane.count ? widened(place[image * own.image + token * own.token]) : 0.0f;
      }
    }
#pragma unroll
    for (int at = 0; at < EIGHT; ++at) {
      sums[at] += values[at];
    }
    store(packed + row * columns + lane.from, values, lane.count, is_wide);
  });
  write_column_sums(partials, sums, lane.start, columns, columns);
}

} // namespace

#define COLUMN_SUM(NAME, T)                                                                      \
  extern "C" __global__ void NAME(                                                               \
      const T* matrix, float* partials, Index rows, Index columns, Index is_wide) {              \
    column_sum<T>(matrix, partials, rows, columns, is_wide);                                     \
  }

COLUMN_SUM(column_sum_f32, float)
COLUMN_SUM(column_sum_bf16, bf16)

// One to three tensors `[b, a, t, k]` of the given strides, put side by side as rows of
// `packed [b · t, parts · a · k]`, and their sums over rows `[gridDim.y, parts · a · k]`. Wide
// where k and all strides are multiples of eight and all addresses of 16 bytes; fewer than 2³¹
// rows.
#define PACK_HEADS(NAME, T)                                                                      \
  extern "C" __global__ void NAME(                                                               \
      const T* part0, Index image0, Index head0, Index token0, const T* part1, Index image1,     \
      Index head1, Index token1, const T* part2, Index image2, Index head2, Index token2,        \
      T* packed, float* partials, Index rows, Index tokens, Index width, Index head_width,       \
      Index columns, Index is_wide) {                                                            \
    pack_heads<T>(                                                                               \
        {part0, image0, head0, token0}, {part1, image1, head1, token1},                          \
        {part2, image2, head2, token2}, packed, partials, rows, tokens, width, head_width,       \
        columns, is_wide);                                                                       \
  }

PACK_HEADS(pack_heads_f32, float)
PACK_HEADS(pack_heads_bf16, bf16)

// Adds to each of up to three vectors the sum over rows of `partials [rows, stride]`, of which they
// have `columns` columns each, one vector behind the other; a null vector is left out. A block has
// 32 columns and 32 rows at a time; blockIdx.y is the vector.
extern "C" __global__ void sum_partials(
    const float* partials,
    Index rows,
    Index stride,
    Index columns,
    float* out0,
    float* out1,
    float* out2) {
  __shared__ float sums[WARP][WARP + 1];
  float* out = blockIdx.y == 0 ? out0 : blockIdx.y == 1 ? out1 : out2;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  const Index column = Index(blockIdx.x) * WARP + lane;
  const float* own = partials + Index(blockIdx.y) * columns + column;
  float sum = 0.0f;
  if (column < columns) {
    for (Index row = warp; row < rows; row += WARP) {
      sum += own[row * stride];
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  const float total = warp_sum(sums[lane][warp]);
  const Index total_column = Index(blockIdx.x) * WARP + warp;
  if (lane == 0 && total_column < columns && out != nullptr) {
    out[total_column] += total;
  }
}
