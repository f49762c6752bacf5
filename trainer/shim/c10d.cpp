// PyTorch's c10d behind a plain C surface: a store, a group of processes over Gloo and one over
// NCCL where they have CUDA devices, collectives, and gradients that are summed while the backward
// pass goes on.
//
// In: tensors and handles of the caller. Out: 0, or 1 and why. Never: an exception that crosses the
// border; a tensor that outlives its work; a decision.

#include <ATen/ATen.h>

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "reason.h"

#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

using catlip::guarded;
using catlip::Reason;
using std::chrono::milliseconds;

// A group whose connections can be closed while collectives wait on them.
class Group : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;

  void close_connections() {
    for (const auto& context : contexts_) {
      context->closeConnections();
    }
  }
};

struct World {
  c10::intrusive_ptr<c10d::Store> store;
  // None after this rank has left.
  c10::intrusive_ptr<Group> group;
  // For tensors of a device, where one was opened: else they go through the host.
  c10::intrusive_ptr<c10d::Backend> device_group;

  c10d::Backend& joined(const at::Tensor& tensor) {
    TORCH_CHECK(group, "this rank has left the group");
    return device_group && !tensor.is_cpu() ? *device_group : *group;
  }
};

// What `nccl.cpp` has.
using OpenNccl = c10d::Backend* (*)(c10d::Store*, int, int, int, int64_t);

// Collectives are begun one at a time in a process: the first of each group goes into a map of
// c10d's flight recorder without a lock (torch 2.11), and ranks may be threads.
std::mutex beginning;

template <typename Begin>
auto begun(World* world, const at::Tensor& tensor, Begin begin) {
  const std::lock_guard<std::mutex> lock(beginning);
  return begin(world->joined(tensor));
}

// A collective under way, with what it reads and writes.
struct Pending {
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<at::Tensor> tensors;
};

void wait(Pending& pending) {
  // Throws what the collective threw, or that it took longer than the group's timeout.
  pending.work->wait();
}

// Stretches of the flat gradient, each summed over the ranks once all of its leaves have theirs.
// They begin in the order of their numbers on every rank, whatever the order of the leaves.
struct Buckets {
  World* world;
  std::vector<at::Tensor> stretches;
  std::vector<int64_t> num_leaves;
  std::vector<int64_t> left;
  std::vector<Pending> pending;
  size_t next = 0;
  bool active = false;
  // What a sum threw that began inside the backward pass, which shall not be taken for its own.
  std::exception_ptr failure;
  std::vector<at::Tensor> leaves;

  void begin() {
    left = num_leaves;
    pending.clear();
    next = 0;
    active = true;
    failure = nullptr;
  }

  void arrived(int64_t bucket) {
    if (!active) {
      return;
    }
    left[bucket] -= 1;
    try {
      while (next < stretches.size() && left[next] <= 0) {
        launch();
      }
    } catch (...) {
      failure = std::current_exception();
      active = false;
    }
  }

  void launch() {
    std::vector<at::Tensor> tensors{stretches[next]};
    auto work =
        begun(world, tensors[0], [&](auto& group) { return group.allreduce(tensors); });
    pending.push_back(Pending{std::move(work), std::move(tensors)});
    next += 1;
  }

  void finish() {
    active = false;
    if (failure) {
      std::rethrow_exception(failure);
    }
    while (next < stretches.size()) {
      launch();
    }
    for (auto& one : pending) {
      wait(one);
    }
    pending.clear();
  }
};

class Arrival : public torch::autograd::PostAccumulateGradHook {
 public:
  Arrival(Buckets* buckets, int64_t bucket) : buckets_(buckets), bucket_(bucket) {}

  void operator()(const torch::autograd::Variable&) override {
    buckets_->arrived(bucket_);
  }

 private:
  Buckets* buckets_;
  int64_t bucket_;
};

c10d::AllreduceOptions reduction(int op) {
  c10d::AllreduceOptions options;
  options.reduceOp = op == 0 ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
  return options;
}

} // namespace

extern "C" {

// Joins `size` processes as number `rank` at `host:port`, where the one that says `is_server` keeps
// the store. `address` is this process's own name or interface; empty: found by itself.
int catlip_world_open(
    const char* host,
    uint16_t port,
    int is_server,
    int rank,
    int size,
    const char* prefix,
    const char* address,
    int64_t timeout_millis,
    World** out,
    Reason reason) {
  return guarded(reason, [&] {
    const milliseconds timeout(timeout_millis);
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server != 0;
    options.waitWorkers = false;
    options.timeout = timeout;
    auto server = c10::make_intrusive<c10d::TCPStore>(host, options);
    auto store = c10::make_intrusive<c10d::PrefixStore>(prefix, server);
    auto group = c10d::ProcessGroupGloo::Options::create(timeout);
    const std::string name(address);
    if (name.empty()) {
      group->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    } else if (name.find('.') != std::string::npos || name.find(':') != std::string::npos) {
      group->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(name));
    } else {
      group->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(name));
    }
    auto gloo = c10::make_intrusive<Group>(store, rank, size, group);
    *out = new World{store, gloo, nullptr};
  });
}

// Opens a second group, for tensors of CUDA device number `device`, by what `nccl.cpp` has.
int catlip_world_add_device(
    World* world,
    void* open_nccl,
    int rank,
    int size,
    int device,
    int64_t timeout_millis,
    Reason reason) {
  return guarded(reason, [&] {
    auto* open = reinterpret_cast<OpenNccl>(open_nccl);
    world->device_group = c10::intrusive_ptr<c10d::Backend>::reclaim(
        open(world->store.get(), rank, size, device, timeout_millis));
  });
}

// Closes the group's connections, so that the other ranks see that this one gave up; the store
// stays. The group itself is never freed: its destructor awaits every collective that is under way,
// and after a failure two ranks can wait like that for each other until the timeout.
int catlip_world_leave(World* world, Reason reason) {
  return guarded(reason, [&] {
    if (auto* group = world->group.release()) {
      group->close_connections();
    }
    if (world->device_group) {
      world->device_group->abort();
    }
  });
}

void catlip_world_close(World* world) {
  delete world;
}

// Begins to sum (op 0) or to take the maximum of (op 1) `tensor` over the ranks, in place.
int catlip_reduce(World* world, at::Tensor* tensor, int op, Pending** out, Reason reason) {
  return guarded(reason, [&] {
    std::vector<at::Tensor> tensors{*tensor};
    auto work = begun(
        world, *tensor, [&](auto& group) { return group.allreduce(tensors, reduction(op)); });
    *out = new Pending{std::move(work), std::move(tensors)};
  });
}

// Begins to put the `part` of each rank into `whole`, in the order of ranks.
int catlip_gather(
    World* world,
    at::Tensor* whole,
    at::Tensor* part,
    Pending** out,
    Reason reason) {
  return guarded(reason, [&] {
    auto work = begun(
        world, *whole, [&](auto& group) { return group._allgather_base(*whole, *part); });
    *out = new Pending{std::move(work), {*whole, *part}};
  });
}

// Begins to sum `whole` over the ranks, of which each keeps its `part`.
int catlip_scatter(
    World* world,
    at::Tensor* part,
    at::Tensor* whole,
    Pending** out,
    Reason reason) {
  return guarded(reason, [&] {
    auto work = begun(
        world, *whole, [&](auto& group) { return group._reduce_scatter_base(*part, *whole); });
    *out = new Pending{std::move(work), {*part, *whole}};
  });
}

// Begins to give every rank the `tensor` of rank `root`.
int catlip_broadcast(World* world, at::Tensor* tensor, int root, Pending** out, Reason reason) {
  return guarded(reason, [&] {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{*tensor};
    auto work = begun(
        world, *tensor, [&](auto& group) { return group.broadcast(tensors, options); });
    *out = new Pending{std::move(work), std::move(tensors)};
  });
}

// Waits for a collective and frees it.
int catlip_wait(Pending* pending, Reason reason) {
  std::unique_ptr<Pending> owned(pending);
  return guarded(reason, [&] { wait(*owned); });
}

// Puts a value into the store.
int catlip_store_set(World* world, const char* key, const char* value, Reason reason) {
  return guarded(reason, [&] { world->store->set(key, std::string(value)); });
}

// Whether the store has a key: 1 or 0 in `out`.
int catlip_store_has(World* world, const char* key, int* out, Reason reason) {
  return guarded(reason, [&] { *out = world->store->check({key}) ? 1 : 0; });
}

// Sums stretch i of the gradient over the ranks during each backward pass, as soon as those of its
// leaves have their gradients: leaf j belongs to stretch `bucket_of[j]`.
int catlip_buckets_attach(
    World* world,
    at::Tensor** stretches,
    size_t num_stretches,
    at::Tensor** leaves,
    const int64_t* bucket_of,
    size_t num_leaves,
    Buckets** out,
    Reason reason) {
  return guarded(reason, [&] {
    auto buckets = std::make_unique<Buckets>();
    buckets->world = world;
    buckets->num_leaves.resize(num_stretches);
    for (size_t i = 0; i < num_stretches; ++i) {
      buckets->stretches.push_back(*stretches[i]);
    }
    for (size_t j = 0; j < num_leaves; ++j) {
      buckets->num_leaves.at(bucket_of[j]) += 1;
      buckets->leaves.push_back(*leaves[j]);
      torch::autograd::impl::set_post_acc_grad_hooks(
          *leaves[j], std::make_unique<Arrival>(buckets.get(), bucket_of[j]));
    }
    *out = buckets.release();
  });
}

// Awaits the next backward pass.
void catlip_buckets_begin(Buckets* buckets) {
  buckets->begin();
}

// Says that a leaf has its gradient, which no graph gave it.
int catlip_buckets_arrived(Buckets* buckets, int64_t bucket, Reason reason) {
  return guarded(reason, [&] { buckets->arrived(bucket); });
}

// Begins what the backward pass did not, and waits for all.
int catlip_buckets_finish(Buckets* buckets, Reason reason) {
  return guarded(reason, [&] { buckets->finish(); });
}

// Frees it; the leaves forget it.
void catlip_buckets_free(Buckets* buckets) {
  for (const auto& leaf : buckets->leaves) {
    torch::autograd::impl::set_post_acc_grad_hooks(leaf, nullptr);
  }
  delete buckets;
}

} // extern "C"
