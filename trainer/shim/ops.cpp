// Operations of ATen that tch lacks, behind a plain C surface: LayerNorm with its statistics and
// its way back, attention by a back end that is named, and its way back.
//
// In: tensors of the caller. Out: 0 and tensors that the caller frees, or 1 and why. Never: an
// exception that crosses the border; a graph.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/GradMode.h>

#include "reason.h"

#include <array>
#include <memory>
#include <optional>
#include <tuple>

namespace {

using catlip::guarded;
using catlip::Reason;

// By the numbers of `AttentionBackend` in ops.rs.
enum class Backend { Cpu = 0, Cudnn = 1, Flash = 2, Efficient = 3 };

// What attention keeps for its way back.
struct Attended {
  Backend backend;
  at::Tensor query, key, value, out, logsumexp;
  // Of the back ends of CUDA.
  at::Tensor seed, offset, lengths_query, lengths_key;
  int64_t max_query = 0, max_key = 0;
};

template <size_t N>
void give(at::Tensor** out, std::array<at::Tensor, N> tensors) {
  for (size_t i = 0; i < N; ++i) {
    out[i] = new at::Tensor(std::move(tensors[i]));
  }
}

// Takes over what cuDNN and FlashAttention give, which is the same.
template <typename Made>
void keep(Attended& kept, const Made& made) {
  kept.out = std::get<0>(made);
  kept.logsumexp = std::get<1>(made);
  kept.lengths_query = std::get<2>(made);
  kept.lengths_key = std::get<3>(made);
  kept.max_query = std::get<4>(made).expect_int();
  kept.max_key = std::get<5>(made).expect_int();
  kept.seed = std::get<6>(made);
  kept.offset = std::get<7>(made);
}

void attend(Attended& kept) {
  const auto& [query, key, value] = std::tie(kept.query, kept.key, kept.value);
  switch (kept.backend) {
    case Backend::Cpu:
      std::tie(kept.out, kept.logsumexp) =
          at::_scaled_dot_product_flash_attention_for_cpu(query, key, value);
      return;
    case Backend::Cudnn:
      // It takes whatever is not bfloat16 for float16, and says nothing.
      TORCH_CHECK(
          query.scalar_type() == at::kBFloat16 || query.scalar_type() == at::kHalf,
          "cuDNN's attention takes numbers of 16 bits, not ", query.scalar_type());
      keep(kept, at::_scaled_dot_product_cudnn_attention(
                     query, key, value, std::nullopt, /*compute_log_sumexp=*/true));
      return;
    case Backend::Flash:
      keep(kept, at::_scaled_dot_product_flash_attention(query, key, value));
      return;
    case Backend::Efficient:
      std::tie(kept.out, kept.logsumexp, kept.seed, kept.offset) =
          at::_scaled_dot_product_efficient_attention(
              query, key, value, std::nullopt, /*compute_log_sumexp=*/true);
      return;
  }
  TORCH_CHECK(false, "no attention back end has number ", static_cast<int>(kept.backend));
}

std::array<at::Tensor, 3> attend_back(const Attended& kept, const at::Tensor& gradient) {
  std::tuple<at::Tensor, at::Tensor, at::Tensor> made;
  switch (kept.backend) {
    case Backend::Cpu:
      made = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          gradient, kept.query, kept.key, kept.value, kept.out, kept.logsumexp, 0.0, false);
      break;
    case Backend::Cudnn:
      made = at::_scaled_dot_product_cudnn_attention_backward(
          gradient, kept.query, kept.key, kept.value, kept.out, kept.logsumexp, kept.seed,
          kept.offset, at::Tensor(), kept.lengths_query, kept.lengths_key, kept.max_query,
          kept.max_key, 0.0, false, std::nullopt);
      break;
    case Backend::Flash:
      made = at::_scaled_dot_product_flash_attention_backward(
          gradient, kept.query, kept.key, kept.value, kept.out, kept.logsumexp,
          kept.lengths_query, kept.lengths_key, kept.max_query, kept.max_key, 0.0, false,
          kept.seed, kept.offset, std::nullopt);
      break;
    case Backend::Efficient: {
      auto four = at::_scaled_dot_product_efficient_attention_backward(
          gradient, kept.query, kept.key, kept.value, at::Tensor(), kept.out, kept.logsumexp,
          kept.seed, kept.offset, 0.0, {true, true, true, false});
      made = {std::get<0>(four), std::get<1>(four), std::get<2>(four)};
      break;
    }
  }
  return {std::get<0>(made), std::get<1>(made), std::get<2>(made)};
}

} // namespace

extern "C" {

// Normalises the last dimension of `x`: the result, and mean and 1 ÷ deviation of each row.
int catlip_layer_norm(
    at::Tensor* x,
    at::Tensor* weight,
    at::Tensor* bias,
    double eps,
    at::Tensor** out3,
    Reason reason) {
  return guarded(reason, [&] {
    c10::NoGradGuard no_grad;
    auto made = at::native_layer_norm(*x, {x->size(-1)}, *weight, *bias, eps);
    give<3>(out3, {std::get<0>(made), std::get<1>(made), std::get<2>(made)});
  });
}

// The way back: gradients of `x`, `weight` and `bias`.
int catlip_layer_norm_back(
    at::Tensor* gradient,
    at::Tensor* x,
    at::Tensor* mean,
    at::Tensor* rstd,
    at::Tensor* weight,
    at::Tensor* bias,
    at::Tensor** out3,
    Reason reason) {
  return guarded(reason, [&] {
    c10::NoGradGuard no_grad;
    auto made = at::native_layer_norm_backward(
        *gradient, *x, {x->size(-1)}, *mean, *rstd, *weight, *bias, {true, true, true});
    give<3>(out3, {std::get<0>(made), std::get<1>(made), std::get<2>(made)});
  });
}

// Attention over `[b, a, t, k]` by a back end: the result, and what its way back needs.
int catlip_attention(
    int backend,
    at::Tensor* query,
    at::Tensor* key,
    at::Tensor* value,
    at::Tensor** out,
    Attended** kept,
    Reason reason) {
  return guarded(reason, [&] {
    c10::NoGradGuard no_grad;
    auto attended = std::make_unique<Attended>();
    attended->backend = static_cast<Backend>(backend);
    attended->query = *query;
    attended->key = *key;
    attended->value = *value;
    attend(*attended);
    *out = new at::Tensor(attended->out);
    *kept = attended.release();
  });
}

// The way back: gradients of queries, keys and values.
int catlip_attention_back(
    Attended* kept,
    at::Tensor* gradient,
    at::Tensor** out3,
    Reason reason) {
  return guarded(reason, [&] {
    c10::NoGradGuard no_grad;
    give<3>(out3, attend_back(*kept, *gradient));
  });
}

// out += a · b, where `out` is float32. With `is_direct` the product of narrower numbers is added
// as float32, as CUDA's half of ATen can; else it is rounded to their kind before.
int catlip_add_product(
    at::Tensor* out,
    at::Tensor* a,
    at::Tensor* b,
    int is_direct,
    Reason reason) {
  return guarded(reason, [&] {
    c10::NoGradGuard no_grad;
    if (out->scalar_type() == a->scalar_type()) {
      out->addmm_(*a, *b);
    } else if (is_direct != 0) {
      at::addmm_out(*out, *out, *a, *b, at::kFloat);
    } else {
      out->add_(at::mm(*a, *b));
    }
  });
}

// Goes back through the graph of `output`, whose gradient is given.
int catlip_backward(at::Tensor* output, at::Tensor* gradient, Reason reason) {
  return guarded(reason, [&] { output->backward(*gradient); });
}

// Takes float32 as float32: PyTorch's own default is TF32, of 11 bits, for convolutions.
int catlip_forbid_tf32(Reason reason) {
  return guarded(reason, [] {
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setAllowTF32CuBLAS(false);
  });
}

// Whether operations that give other bits in another run are to be avoided.
int catlip_set_deterministic(int is_wanted, Reason reason) {
  return guarded(reason, [&] {
    auto& context = at::globalContext();
    // With a mere warning attention's ways back would add as it comes.
    context.setDeterministicAlgorithms(is_wanted != 0, /*warn_only=*/false);
    // Fresh memory would else be filled with NaN, which takes time and changes nothing.
    context.setDeterministicFillUninitializedMemory(false);
    context.setDeterministicCuDNN(is_wanted != 0);
  });
}

void catlip_attention_free(Attended* kept) {
  delete kept;
}

} // extern "C"
