// Runs the kernels on a CPU: see emulate.h. Compiled and loaded by the tests of kernels.rs.
//
// In: a kernel's name, sizes of grid and block, arguments as `cuLaunchKernel` takes them. Out: 0,
// or 1 and why: no such kernel, or a barrier that some threads never reach.
#define CATLIP_EMULATED

#include "augment.cu"
#include "columns.cu"
#include "gelu.cu"
#include "loss.cu"
#include "norm.cu"
#include "stem.cu"
#include "tokens.cu"
#include "update.cu"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace emulated {

Dim thread, block, block_size, grid_size;

namespace {

constexpr size_t STACK_BYTES = 64 * 1024;

// Threads that meet: the last to come lets all go on.
struct Gate {
  unsigned members = 0, arrived = 0, generation = 0;
};

// A thread of a block. It is made once and runs a body for each block after the other. Only its
// first turn is given by `setcontext`, which asks the system each time; all others are jumps.
struct Fiber {
  jmp_buf jump;
  std::unique_ptr<char[]> stack;
  bool is_done = true;
};

std::vector<std::unique_ptr<Fiber>> fibers;
jmp_buf scheduler;
size_t current;
Gate gate_of_block;
std::vector<Gate> gates_of_warps;
std::vector<unsigned> exchanged;
const std::function<void()>* body;
// Whether anything moved since the scheduler last looked.
bool has_moved;

void yield() {
  if (_setjmp(fibers[current]->jump) == 0) {
    _longjmp(scheduler, 1);
  }
}

void wait_at(Gate& gate) {
  const unsigned generation = gate.generation;
  if (++gate.arrived == gate.members) {
    gate.arrived = 0;
    ++gate.generation;
    has_moved = true;
  }
  while (gate.generation == generation) {
    yield();
  }
}

void run_bodies() {
  for (;;) {
    (*body)();
    fibers[current]->is_done = true;
    has_moved = true;
    yield();
  }
}

// Gives the current fiber a turn; back when it yields.
void resume() {
  if (_setjmp(scheduler) != 0) {
    return;
  }
  Fiber& fiber = *fibers[current];
  if (fiber.stack) {
    _longjmp(fiber.jump, 1);
  }
  fiber.stack = std::make_unique<char[]>(STACK_BYTES);
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = STACK_BYTES;
  context.uc_link = nullptr;
  makecontext(&context, run_bodies, 0);
  setcontext(&context);
}

// Gives each of `count` threads from `first` on a turn; how many of them are done by it.
size_t run_warp(size_t first, size_t count, bool is_reversed) {
  size_t done = 0;
  for (size_t turn = 0; turn < count; ++turn) {
    current = first + (is_reversed ? count - 1 - turn : turn);
    if (!fibers[current]->is_done) {
      thread = {static_cast<unsigned>(current), 0, 0};
      resume();
      done += fibers[current]->is_done;
    }
  }
  return done;
}

// Runs a block, warp after warp, from the first on or from the last: what depends on that lacks a
// barrier.
void run_block(bool is_reversed) {
  const size_t threads = block_size.x;
  while (fibers.size() < threads) {
    fibers.push_back(std::make_unique<Fiber>());
  }
  gate_of_block = {static_cast<unsigned>(threads)};
  gates_of_warps.assign((threads + WARP - 1) / WARP, Gate{});
  exchanged.assign(threads, 0);
  for (size_t at = 0; at < threads; ++at) {
    ++gates_of_warps[at / WARP].members;
    fibers[at]->is_done = false;
  }
  size_t left = threads;
  const size_t warps = gates_of_warps.size();
  while (left > 0) {
    bool is_stuck = true;
    for (size_t turn = 0; turn < warps; ++turn) {
      const size_t warp = is_reversed ? warps - 1 - turn : turn;
      // A warp goes as far ahead of the others as it can.
      do {
        has_moved = false;
        left -= run_warp(warp * WARP, gates_of_warps[warp].members, is_reversed);
        is_stuck = is_stuck && !has_moved;
      } while (has_moved);
    }
    if (is_stuck) {
      // They would wait for ever.
      fibers.clear();
      throw std::runtime_error(
          std::to_string(left) + " of " + std::to_string(threads) +
          " threads wait at a barrier that the others do not reach");
    }
  }
}

// Arguments are told apart by letters: p a pointer, i an Index, f a float.
template <typename A>
constexpr char letter() {
  if (std::is_pointer_v<A>) {
    return 'p';
  }
  return std::is_same_v<A, float> ? 'f' : std::is_same_v<A, Index> ? 'i' : '?';
}

struct Kernel {
  std::string signature;
  std::function<void(void**)> call;
};

template <typename... A, size_t... I>
void call_with(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<A*>(arguments[I])...);
}

template <typename... A>
Kernel wrapped(void (*kernel)(A...)) {
  return {{letter<A>()...}, [kernel](void** arguments) {
            call_with(kernel, arguments, std::index_sequence_for<A...>());
          }};
}

#define BOTH(NAME) {#NAME "_f32", wrapped(NAME##_f32)}, {#NAME "_bf16", wrapped(NAME##_bf16)}
#define ONE(NAME) {#NAME, wrapped(NAME)}

const std::map<std::string, Kernel> KERNELS = {
    BOTH(add_norm),   BOTH(norm_back),  BOTH(gelu),        BOTH(gelu_back),
    BOTH(column_sum), BOTH(pack_heads), ONE(sum_partials), BOTH(patchify),
    BOTH(tokens),     BOTH(tokens_back), BOTH(bce),        BOTH(softmax),
    ONE(square_sum),  ONE(verdict),     ONE(adamw),       BOTH(square_off),
    BOTH(stem_patches), BOTH(stem_patches_of_bytes), BOTH(stem_patches_back),
    BOTH(normal_gelu), BOTH(normal_gelu_sums), BOTH(normal_gelu_back),
    ONE(range_sums_of_floats), ONE(range_sums_of_bytes),
    BOTH(range_mix_of_floats), BOTH(range_mix_of_bytes),
    BOTH(range_back_of_floats), BOTH(range_back_of_bytes),
};

int said(char* reason, size_t bytes, const std::string& what) {
  std::snprintf(reason, bytes, "%s", what.c_str());
  return 1;
}

} // namespace

void wait_block() {
  wait_at(gate_of_block);
}

unsigned exchange(unsigned bits, int distance) {
  const size_t own = current;
  exchanged[own] = bits;
  wait_at(gates_of_warps[own / WARP]);
  const unsigned other = exchanged[own ^ static_cast<size_t>(distance)];
  // Nobody gives the next before all have taken.
  wait_at(gates_of_warps[own / WARP]);
  return other;
}

} // namespace emulated

// `signature` says how the caller put each argument; it must be how the kernel takes it.
extern "C" int catlip_emulate(
    const char* name,
    const char* signature,
    const unsigned* grid,
    unsigned threads,
    void** arguments,
    int is_reversed,
    char* reason,
    size_t reason_bytes) {
  using namespace emulated;
  const auto found = KERNELS.find(name);
  if (found == KERNELS.end()) {
    return said(reason, reason_bytes, std::string("no kernel is called ") + name);
  }
  const Kernel& kernel = found->second;
  if (kernel.signature != signature) {
    return said(
        reason, reason_bytes,
        std::string(name) + " is called with " + signature + ", it takes " + kernel.signature);
  }
  const std::function<void()> once = [&] { kernel.call(arguments); };
  body = &once;
  grid_size = {grid[0], grid[1], 1};
  block_size = {threads, 1, 1};
  try {
    const unsigned blocks = grid[0] * grid[1];
    for (unsigned turn = 0; turn < blocks; ++turn) {
      const unsigned at = is_reversed ? blocks - 1 - turn : turn;
      block = {at % grid[0], at / grid[0], 0};
      run_block(is_reversed != 0);
    }
  } catch (const std::exception& error) {
    return said(reason, reason_bytes, std::string(name) + ": " + error.what());
  }
  return 0;
}

// How the kernel called `name` takes its arguments, or null.
extern "C" const char* catlip_emulated_signature(const char* name) {
  const auto found = emulated::KERNELS.find(name);
  return found == emulated::KERNELS.end() ? nullptr : found->second.signature.c_str();
}
