// PyTorch's c10d over NCCL: a library of its own, opened where ranks have CUDA devices, because
// what it calls is in the half of libtorch that machines without one do not have.
//
// In: a store and a seat. Out: a backend for tensors of that device. Never: is linked.

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "nccl.h"

#include <chrono>

extern "C" c10d::Backend* catlip_nccl_open(
    c10d::Store* shared,
    int rank,
    int size,
    int device,
    int64_t timeout_millis) {
  auto store = c10::make_intrusive<c10d::PrefixStore>(
      "nccl", c10::intrusive_ptr<c10d::Store>::reclaim_copy(shared));
  auto options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
  options->timeout = std::chrono::milliseconds(timeout_millis);
  auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
  // Now rather than at the first sum: who has the wrong device is told before the first step.
  group->eagerConnectSingleDevice(at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device)));
  return group.release();
}
