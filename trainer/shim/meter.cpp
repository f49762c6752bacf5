// What is measured of a CUDA device: moments on its stream, and the memory that was taken of it.
//
// In: a device, and what runs on its current stream. Out: 0 and numbers, or 1 and why. Never: an
// exception that crosses the border; a header of CUDA: c10 reaches the device by its own tables,
// which the CUDA half fills when it is loaded.

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "reason.h"

#include <memory>

namespace {

using catlip::guarded;
using catlip::Reason;

constexpr size_t kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

// The device, whose allocator and streams are there as soon as somebody asks for them.
c10::Device device_of(int number) {
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(number)};
}

} // namespace

extern "C" {

// Notes the moment at which the current stream gets here. The caller frees it.
int catlip_moment(int device, c10::Event** out, Reason reason) {
  return guarded(reason, [&] {
    // An event of another kind knows no time.
    const auto on = device_of(device);
    auto event = std::make_unique<c10::Event>(
        c10::DeviceType::CUDA, c10::EventFlag::BACKEND_DEFAULT);
    event->record(c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStream(on));
    *out = event.release();
  });
}

// Waits until the stream has got there.
int catlip_moment_await(c10::Event* moment, Reason reason) {
  return guarded(reason, [&] { moment->synchronize(); });
}

// Seconds from one moment to a later one. Waits for both.
int catlip_moment_secs(c10::Event* from, c10::Event* until, double* secs, Reason reason) {
  return guarded(reason, [&] {
    from->synchronize();
    until->synchronize();
    *secs = from->elapsedTime(*until) / 1e3;
  });
}

void catlip_moment_free(c10::Event* moment) {
  delete moment;
}

// The most bytes of tensors at once since the last `catlip_memory_reset`, and the most that the
// allocator held for them.
int catlip_memory_peak(int device, int64_t* peak2, Reason reason) {
  return guarded(reason, [&] {
    const auto number = device_of(device).index();
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(number);
    peak2[0] = stats.allocated_bytes[kAll].peak;
    peak2[1] = stats.reserved_bytes[kAll].peak;
  });
}

// Begins to count anew, from what is held now.
int catlip_memory_reset(int device, Reason reason) {
  return guarded(reason, [&] {
    const auto number = device_of(device).index();
    auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    allocator->emptyCache();
    allocator->resetPeakStats(number);
  });
}

} // extern "C"
