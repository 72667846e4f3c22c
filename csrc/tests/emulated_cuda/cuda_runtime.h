// As much of CUDA as the miner's kernels use, on the CPU and for tests alone: with this folder on the include path, a C++
// compiler builds the very sources that nvcc builds.
//
// Blocks run one after the other, each CUDA thread on a stack of its own (a fiber) until it has to wait for others. So
// nothing happens at the same time, and the order in which threads go on is the tests' choice: what depends on it lacks a
// barrier. Two things stay hidden. Shared memory is a static that the next block finds as the last one left it (the first
// finds zeros), where a GPU's has no defined contents; and a kernel that waits for another block never ends here.
#pragma once

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(__x86_64__) && !defined(FACENET_FAST_EMULATED_UCONTEXT)
#define FACENET_FAST_EMULATED_UCONTEXT 1
#endif
#if defined(FACENET_FAST_EMULATED_UCONTEXT)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define FACENET_FAST_EMULATED_CUDA 1
#define CUDART_VERSION 13000

// -- words of the language ---------------------------------------------------------------------------------------------
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;

    constexpr dim3(unsigned nx = 1, unsigned ny = 1, unsigned nz = 1) noexcept : x(nx), y(ny), z(nz) {}
    constexpr dim3(uint3 of) noexcept : x(of.x), y(of.y), z(of.z) {}
    constexpr operator uint3() const noexcept { return {x, y, z}; }
};

// As aligned as CUDA's, so that UndefinedBehaviorSanitizer sees a vector that a GPU could not load.
struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// -- what the runtime's functions take and return ----------------------------------------------------------------------
enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotSupported = 801
};
using cudaError_t = cudaError;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4
};

enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeHost = 1, cudaMemoryTypeDevice = 2 };

struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};

enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};

struct cudaDeviceProp {
    char name[256];
    std::size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
};

struct CUstream_st;
struct CUevent_st;
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;

#define cudaStreamLegacy (reinterpret_cast<cudaStream_t>(std::uintptr_t{1}))
#define cudaStreamPerThread (reinterpret_cast<cudaStream_t>(std::uintptr_t{2}))

inline constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDefault = 0, cudaEventDisableTiming = 2;
inline constexpr unsigned cudaHostAllocDefault = 0, cudaHostAllocMapped = 2;

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
    void* attrs;
    unsigned numAttrs;
};

struct CUstream_st {};
struct CUevent_st {
    bool is_recorded = false;
    std::chrono::steady_clock::time_point time{};
};

namespace emulated_cuda {

// -- threads -----------------------------------------------------------------------------------------------------------
inline constexpr unsigned kMostThreads = 1024, kWarp = 32, kMostWarps = kMostThreads / kWarp;
inline constexpr unsigned char kPoison = 0xC5;  // memory that nobody has written yet
inline constexpr std::uint64_t kPoisonedValue = 0xC5C5'C5C5'C5C5'C5C5;

#if defined(__SANITIZE_ADDRESS__)
inline constexpr std::size_t kStackBytes = std::size_t{256} << 10;  // its frames are larger by far
#else
inline constexpr std::size_t kStackBytes = std::size_t{64} << 10;
#endif

// In what order a block's threads go on, and a grid's blocks run. Forward and backward take turns; shuffled picks at
// random, and lets some warps run far ahead of others.
enum class Order { kForward, kBackward, kShuffled };

// What a thread waits in.
enum class Call : unsigned char {
    kSyncthreads,
    kSyncthreadsCount,
    kSyncthreadsOr,
    kSyncthreadsAnd,
    kSyncwarp,
    kBallot,
    kAny,
    kAll,
    kShfl,
    kShflXor,
    kShflUp,
    kShflDown
};

inline bool is_of_block(Call call) noexcept { return call <= Call::kSyncthreadsAnd; }

inline const char* name_of(Call call) noexcept {
    constexpr const char* kNames[] = {"__syncthreads", "__syncthreads_count", "__syncthreads_or", "__syncthreads_and",
                                      "__syncwarp",    "__ballot_sync",       "__any_sync",       "__all_sync",
                                      "__shfl_sync",   "__shfl_xor_sync",     "__shfl_up_sync",   "__shfl_down_sync"};
    return kNames[static_cast<unsigned>(call)];
}

struct Thread {
#if defined(FACENET_FAST_EMULATED_UCONTEXT)
    ucontext_t context;
#else
    void* stack_pointer;
#endif
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack;
#endif
    const void* stack;  // its lowest byte; null: the thread has none yet
    std::size_t stack_bytes;

    Call waits_in;
    unsigned mask;
    // Of a warp's call: what the thread brings, the lane it reads, and what it is given.
    unsigned source;
    std::uint64_t value, result;
};

// Lanes of a warp that have come to a call and wait for the others of its mask.
struct Meeting {
    unsigned mask, arrived, n_true;  // n_true: a bit for each lane that brought something other than zero
    Call call;
    unsigned value_bytes;
};

struct Warp {
    unsigned live;  // lanes that the block has and that have not ended
    unsigned n_meetings;
    Meeting meetings[kWarp];
};

struct Indices {
    uint3 thread{}, block{};
    dim3 block_dim{}, grid_dim{};
};

inline constinit Indices indices;

struct Scheduler {
    Thread threads[kMostThreads], host;
    Thread* current;   // null: no kernel has run yet
    Thread* previous;  // the one that ran before it

    Warp warps[kMostWarps];
    unsigned n_threads, n_live;
    // At the barrier of the block.
    unsigned n_arrived, n_true;
    Call barrier;
    int barrier_result;

    // Threads that can go on, in a ring.
    std::uint16_t ready[kMostThreads];
    unsigned first_ready, n_ready;

    bool is_order_known;
    Order order;
    std::uint64_t random;
    unsigned reach;  // shuffled: among how many of those that have been ready for the shortest time to pick

    void (*body)(const void*);
    const void* arguments;
};

inline constinit Scheduler scheduler{};

inline bool in_kernel() noexcept { return scheduler.current != nullptr && scheduler.current != &scheduler.host; }

// Says what is wrong, and in which thread, and ends the program.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
    std::fputs("emulated CUDA: ", stderr);
    std::va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    if (in_kernel()) {
        std::fprintf(stderr, " (thread %u of block %u, %u, %u)", indices.thread.x, indices.block.x, indices.block.y,
                     indices.block.z);
    }
    std::fputs("\n", stderr);
    std::abort();
}

inline unsigned random_below(unsigned n) noexcept {
    // SplitMix64.
    std::uint64_t z = scheduler.random += 0x9E37'79B9'7F4A'7C15;
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EB;
    return static_cast<unsigned>(((z ^ (z >> 31)) >> 32) * n >> 32);
}

inline void set_order(Order order, std::uint64_t seed = 0) noexcept {
    scheduler.order = order;
    scheduler.random = seed;
    scheduler.is_order_known = true;
}

inline void read_order() {
    const char* order = std::getenv("FACENET_FAST_EMULATED_ORDER");
    const char* seed = std::getenv("FACENET_FAST_EMULATED_SEED");
    const std::string_view word = order == nullptr ? "forward" : order;
    if (word != "forward" && word != "backward" && word != "shuffled") {
        fail("FACENET_FAST_EMULATED_ORDER must be forward, backward or shuffled; got '%s'", order);
    }
    set_order(word == "forward"    ? Order::kForward
              : word == "backward" ? Order::kBackward
                                   : Order::kShuffled,
              seed == nullptr ? 0 : std::strtoull(seed, nullptr, 10));
}

// -- from one thread to the next ---------------------------------------------------------------------------------------
[[noreturn]] inline void run_threads();

#if defined(FACENET_FAST_EMULATED_UCONTEXT)
inline void prepare(Thread& thread, std::byte* stack) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stack;
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, run_threads, 0);
}

inline void switch_stacks(Thread& from, Thread& to) { swapcontext(&from.context, &to.context); }
#else
// Leaves what a function must keep for its caller on the stack, and goes on where another stack was left so. To be a
// function that the compiler cannot look into is what makes it write shared memory before a barrier and read it after.
#if defined(__clang__)
[[gnu::naked, gnu::noinline]]
#else
[[gnu::naked, gnu::noipa]]
#endif
inline void switch_stack_pointers(void** /* %rdi */, void* /* %rsi */) {
    asm volatile(
        "pushq %rbp\n\t"
        "pushq %rbx\n\t"
        "pushq %r12\n\t"
        "pushq %r13\n\t"
        "pushq %r14\n\t"
        "pushq %r15\n\t"
        "movq %rsp, (%rdi)\n\t"
        "movq %rsi, %rsp\n\t"
        "popq %r15\n\t"
        "popq %r14\n\t"
        "popq %r13\n\t"
        "popq %r12\n\t"
        "popq %rbx\n\t"
        "popq %rbp\n\t"
        "ret");
}

// The stack as run_threads() finds it: a return address, at which a debugger stops, where a call would have left it.
inline void prepare(Thread& thread, std::byte* stack) {
    constexpr std::size_t kSavedRegisters = 6;
    auto* top = reinterpret_cast<std::uintptr_t*>(stack + kStackBytes);
    *--top = 0;
    *--top = reinterpret_cast<std::uintptr_t>(&run_threads);
    for (std::size_t i = 0; i < kSavedRegisters; ++i) { *--top = 0; }
    thread.stack_pointer = top;
}

inline void switch_stacks(Thread& from, Thread& to) { switch_stack_pointers(&from.stack_pointer, to.stack_pointer); }
#endif

// Of a thread that has just gone on: tells AddressSanitizer whose stack this is, and learns from it where the host's is.
inline void arrive([[maybe_unused]] void* fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
    Thread& previous = *scheduler.previous;
    const void* stack = nullptr;
    std::size_t n_bytes = 0;
    __sanitizer_finish_switch_fiber(fake_stack, &stack, &n_bytes);
    if (&previous == &scheduler.host) {
        previous.stack = stack;
        previous.stack_bytes = n_bytes;
    }
#endif
}

inline void switch_to(Thread& next) {
    Thread& self = *scheduler.current;
    if (&next == &self) { return; }
    scheduler.previous = &self;
    scheduler.current = &next;
    indices.thread.x = &next == &scheduler.host ? 0 : static_cast<unsigned>(&next - scheduler.threads);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&self.fake_stack, next.stack, next.stack_bytes);
    switch_stacks(self, next);
    arrive(self.fake_stack);
#else
    switch_stacks(self, next);
#endif
}

// Once per program and thread: the next block finds the stack where the last one left it. Below it lies a page that
// nobody may touch, so that a stack too small ends the program.
inline void make_stack(Thread& thread) {
    if (thread.stack != nullptr) { return; }
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) { fail("no memory for the stack of a thread"); }
    std::byte* stack = static_cast<std::byte*>(memory) + page;
    thread.stack = stack;
    thread.stack_bytes = kStackBytes;
    prepare(thread, stack);
}

// -- who goes on -------------------------------------------------------------------------------------------------------
inline void make_ready(unsigned thread) noexcept {
    scheduler.ready[(scheduler.first_ready + scheduler.n_ready++) % kMostThreads] = static_cast<std::uint16_t>(thread);
}

inline void make_ready(unsigned warp, unsigned lanes) noexcept {
    while (lanes != 0) {
        const int lane = scheduler.order == Order::kBackward ? 31 - std::countl_zero(lanes) : std::countr_zero(lanes);
        make_ready(warp * kWarp + static_cast<unsigned>(lane));
        lanes ^= 1u << lane;
    }
}

inline void make_all_ready() noexcept {
    const unsigned n_warps = (scheduler.n_threads + kWarp - 1) / kWarp;
    for (unsigned i = 0; i < n_warps; ++i) {
        const unsigned warp = scheduler.order == Order::kBackward ? n_warps - 1 - i : i;
        make_ready(warp, scheduler.warps[warp].live);
    }
}

inline unsigned take_ready() noexcept {
    if (scheduler.order == Order::kShuffled) {
        const unsigned reach = scheduler.n_ready < scheduler.reach ? scheduler.n_ready : scheduler.reach;
        const unsigned last = scheduler.first_ready + --scheduler.n_ready;
        std::swap(scheduler.ready[(last - random_below(reach)) % kMostThreads], scheduler.ready[last % kMostThreads]);
        return scheduler.ready[last % kMostThreads];
    }
    --scheduler.n_ready;
    return scheduler.ready[scheduler.first_ready++ % kMostThreads];
}

[[noreturn]] inline void fail_of_deadlock() {
    const auto lane_of = [](unsigned thread) { return 1u << thread % kWarp; };
    const auto is_live = [&](unsigned thread) { return (scheduler.warps[thread / kWarp].live & lane_of(thread)) != 0; };
    const auto is_alike = [&](unsigned a, unsigned b) {
        const Thread &of_a = scheduler.threads[a], &of_b = scheduler.threads[b];
        if (is_live(a) != is_live(b)) { return false; }
        if (!is_live(a)) { return true; }
        return of_a.waits_in == of_b.waits_in &&
               (is_of_block(of_a.waits_in) || (a / kWarp == b / kWarp && of_a.mask == of_b.mask));
    };
    std::fprintf(stderr, "emulated CUDA: deadlock in block %u, %u, %u of %u threads:\n", indices.block.x, indices.block.y,
                 indices.block.z, scheduler.n_threads);
    for (unsigned begin = 0, end; begin < scheduler.n_threads; begin = end) {
        for (end = begin + 1; end < scheduler.n_threads && is_alike(begin, end);) { ++end; }
        const Thread& thread = scheduler.threads[begin];
        std::fprintf(stderr, end == begin + 1 ? "  thread %u " : "  threads %u to %u ", begin, end - 1);
        if (!is_live(begin)) {
            std::fputs("ended\n", stderr);
        } else if (is_of_block(thread.waits_in)) {
            std::fprintf(stderr, "in %s()\n", name_of(thread.waits_in));
        } else {
            std::fprintf(stderr, "in %s(), mask 0x%08x\n", name_of(thread.waits_in), thread.mask);
        }
    }
    std::abort();
}

inline void run_next() {
    if (scheduler.n_ready != 0) {
        switch_to(scheduler.threads[take_ready()]);
    } else if (scheduler.n_live == 0) {
        switch_to(scheduler.host);
    } else {
        fail_of_deadlock();
    }
}

// -- barriers of a block -----------------------------------------------------------------------------------------------
inline void open_barrier() noexcept {
    const unsigned n = scheduler.n_arrived, n_true = scheduler.n_true;
    scheduler.barrier_result = scheduler.barrier == Call::kSyncthreadsCount ? static_cast<int>(n_true)
                               : scheduler.barrier == Call::kSyncthreadsOr  ? n_true != 0
                                                                            : n_true == n;
    scheduler.n_arrived = scheduler.n_true = 0;
    make_all_ready();
}

inline int wait_for_block(Call call, bool is_true) {
    if (!in_kernel()) { fail("%s() outside of a kernel", name_of(call)); }
    if (scheduler.n_arrived == 0) {
        scheduler.barrier = call;
    } else if (scheduler.barrier != call) {
        fail("%s() where other threads of the block wait in %s()", name_of(call), name_of(scheduler.barrier));
    }
    scheduler.n_true += is_true;
    scheduler.current->waits_in = call;
    if (++scheduler.n_arrived == scheduler.n_live) { open_barrier(); }
    run_next();
    return scheduler.barrier_result;  // nobody comes to the next barrier and opens it before all have read this one's
}

// -- calls of a warp ---------------------------------------------------------------------------------------------------
inline void close(Meeting& meeting, unsigned warp) noexcept {
    const unsigned first = warp * kWarp;
    for (unsigned lanes = meeting.mask; lanes != 0; lanes &= lanes - 1) {
        Thread& thread = scheduler.threads[first + static_cast<unsigned>(std::countr_zero(lanes))];
        switch (meeting.call) {
            case Call::kBallot: thread.result = meeting.n_true; break;
            case Call::kAny: thread.result = meeting.n_true != 0; break;
            case Call::kAll: thread.result = meeting.n_true == meeting.mask; break;
            default:
                // What a lane outside of the mask would give is undefined.
                thread.result = (meeting.mask >> thread.source & 1) != 0 ? scheduler.threads[first + thread.source].value
                                                                         : kPoisonedValue;
        }
    }
    make_ready(warp, meeting.mask);
    Warp& of = scheduler.warps[warp];
    meeting = of.meetings[--of.n_meetings];
}

inline std::uint64_t wait_for_warp(Call call, unsigned mask, std::uint64_t value = 0, unsigned source = 0,
                                   unsigned value_bytes = 0) {
    if (!in_kernel()) { fail("%s() outside of a kernel", name_of(call)); }
    Thread& self = *scheduler.current;
    const unsigned warp = indices.thread.x / kWarp, lane = indices.thread.x % kWarp, bit = 1u << lane;
    Warp& of = scheduler.warps[warp];
    if ((mask & bit) == 0) { fail("%s() with mask 0x%08x, which lacks the caller's lane %u", name_of(call), mask, lane); }
    if (const unsigned missing = mask & ~of.live; missing != 0) {
        const auto other = static_cast<unsigned>(std::countr_zero(missing));
        fail("%s() with mask 0x%08x, but lane %u %s", name_of(call), mask, other,
             warp * kWarp + other < scheduler.n_threads ? "has ended" : "is beyond the block's threads");
    }

    Meeting* meeting = nullptr;
    for (unsigned i = 0; i < of.n_meetings; ++i) {
        Meeting& other = of.meetings[i];
        if (other.mask == mask) {
            meeting = &other;
        } else if ((other.mask & bit) != 0 && (other.arrived & mask) != 0) {
            // Masks may overlap as long as nobody waits for somebody who waits for him.
            fail("%s() with mask 0x%08x, but lanes 0x%08x wait for this one in %s() with mask 0x%08x", name_of(call), mask,
                 other.arrived, name_of(other.call), other.mask);
        }
    }
    if (meeting == nullptr) {
        meeting = &of.meetings[of.n_meetings++];
        *meeting = {mask, 0, 0, call, value_bytes};
    } else if (meeting->call != call) {
        fail("%s() with mask 0x%08x, but lanes 0x%08x wait with it in %s()", name_of(call), mask, meeting->arrived,
             name_of(meeting->call));
    } else if (meeting->value_bytes != value_bytes) {
        fail("%s() of %u bytes with mask 0x%08x, but lanes 0x%08x wait with it for %u bytes", name_of(call), value_bytes, mask,
             meeting->arrived, meeting->value_bytes);
    }

    self.waits_in = call;
    self.mask = mask;
    self.value = value;
    self.source = source;
    meeting->arrived |= bit;
    if (value != 0) { meeting->n_true |= bit; }
    if (meeting->arrived == mask) { close(*meeting, warp); }
    run_next();
    return self.result;
}

template <class T>
T shuffle(Call call, unsigned mask, T value, unsigned operand, int width) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles values of 4 or 8 bytes");
    if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
        fail("%s() with width %d, which is no power of two up to 32", name_of(call), width);
    }
    const unsigned lane = indices.thread.x % kWarp, n = static_cast<unsigned>(width);
    const unsigned first = lane & ~(n - 1), last = first + n - 1;
    operand %= kWarp;  // instructions see no more of it
    // Beyond its own lanes a thread reads itself; but from an exclusive or, those of earlier groups too.
    unsigned source = lane;
    switch (call) {
        case Call::kShfl: source = first | (operand & (n - 1)); break;
        case Call::kShflXor: source = (lane ^ operand) <= last ? lane ^ operand : lane; break;
        case Call::kShflUp: source = lane - first >= operand ? lane - operand : lane; break;
        default: source = lane + operand <= last ? lane + operand : lane;
    }
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = wait_for_warp(call, mask, bits, source, sizeof(T));
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

// -- blocks and grids --------------------------------------------------------------------------------------------------
// What every stack runs: its thread of one block after the other.
[[noreturn]] inline void run_threads() {
    arrive(nullptr);
    for (;;) {
        scheduler.body(scheduler.arguments);

        Warp& warp = scheduler.warps[indices.thread.x / kWarp];
        const unsigned lane = indices.thread.x % kWarp;
        for (unsigned i = 0; i < warp.n_meetings; ++i) {
            const Meeting& meeting = warp.meetings[i];
            if ((meeting.mask >> lane & 1) != 0) {
                fail("lane %u ends, but lanes 0x%08x wait for it in %s() with mask 0x%08x", lane, meeting.arrived,
                     name_of(meeting.call), meeting.mask);
            }
        }
        warp.live &= ~(1u << lane);
        // Barriers do not wait for those that have ended.
        if (--scheduler.n_live != 0 && scheduler.n_arrived == scheduler.n_live) { open_barrier(); }
        run_next();
    }
}

inline void run_block(unsigned n_threads) {
    scheduler.n_threads = scheduler.n_live = n_threads;
    scheduler.n_arrived = scheduler.n_true = scheduler.n_ready = 0;
    for (unsigned warp = 0; warp < kMostWarps; ++warp) {
        const unsigned first = warp * kWarp;
        scheduler.warps[warp].n_meetings = 0;
        scheduler.warps[warp].live = n_threads >= first + kWarp ? ~0u : n_threads > first ? (1u << (n_threads - first)) - 1 : 0;
    }
    if (scheduler.order == Order::kShuffled) {
        constexpr unsigned kReaches[] = {4, kWarp, kMostThreads};
        scheduler.reach = kReaches[random_below(3)];
    }
    make_all_ready();
    run_next();
}

inline void run_grid(const dim3& grid, unsigned n_threads) {
    if (!scheduler.is_order_known) { read_order(); }
    scheduler.current = &scheduler.host;
    for (unsigned i = 0; i < n_threads; ++i) { make_stack(scheduler.threads[i]); }
    indices.grid_dim = grid;
    indices.block_dim = dim3(n_threads);

    const std::uint64_t n = std::uint64_t{grid.x} * grid.y * grid.z;
    std::vector<std::uint64_t> shuffled(scheduler.order == Order::kShuffled ? n : 0);
    std::iota(shuffled.begin(), shuffled.end(), std::uint64_t{0});
    for (std::size_t i = shuffled.size(); i > 1; --i) {
        // More blocks than an unsigned counts would take years.
        std::swap(shuffled[i - 1], shuffled[random_below(static_cast<unsigned>(i))]);
    }
    for (std::uint64_t i = 0; i < n; ++i) {
        const std::uint64_t block = scheduler.order == Order::kForward    ? i
                                    : scheduler.order == Order::kBackward ? n - 1 - i
                                                                          : shuffled[i];
        indices.block = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                         static_cast<unsigned>(block / grid.x / grid.y)};
        run_block(n_threads);
    }
}

// -- memory, streams, devices ------------------------------------------------------------------------------------------
inline constexpr std::size_t kDeviceBytes = std::size_t{8} << 30;
inline constexpr std::align_val_t kAlignment{256};  // cudaMalloc's promise

struct Allocation {
    std::size_t n_bytes;
    cudaMemoryType type;
    int device;
};

struct Runtime {
    std::mutex mutex;  // of all that follows, and of the scheduler
    std::map<std::uintptr_t, Allocation> allocations;
    std::set<cudaStream_t> streams;
    std::set<cudaEvent_t> events;
    std::size_t live_bytes = 0, live_host_bytes = 0, limit = kDeviceBytes;
    int n_devices = -1;  // below zero: as the environment says
    cudaError_t device_status = cudaSuccess;
};

// Never destroyed: others' destructors may still free what they own.
inline Runtime& runtime() {
    static Runtime& instance = *new Runtime;
    return instance;
}

inline thread_local cudaError_t last_error = cudaSuccess;
inline thread_local int current_device = 0;

inline cudaError_t remember(cudaError_t status) noexcept {
    if (status != cudaSuccess) { last_error = status; }
    return status;
}

inline std::unique_lock<std::mutex> lock() { return std::unique_lock(runtime().mutex); }

// All memory of the device, of which cudaMalloc gives no more.
inline void set_memory_limit(std::size_t n_bytes = kDeviceBytes) {
    const auto locked = lock();
    runtime().limit = n_bytes;
}

inline std::size_t live_bytes() {
    const auto locked = lock();
    return runtime().live_bytes;
}

inline std::size_t live_host_bytes() {
    const auto locked = lock();
    return runtime().live_host_bytes;
}

// What cudaGetDeviceCount says, and what all that needs a device fails with; goes before the environment.
inline void set_device_count(int n, cudaError_t status = cudaSuccess) {
    const auto locked = lock();
    runtime().n_devices = n;
    runtime().device_status = n == 0 && status == cudaSuccess ? cudaErrorNoDevice : status;
}

// The functions below are called with the runtime locked.

inline cudaError_t count_devices(int& n) {
    if (runtime().n_devices >= 0) {
        n = runtime().device_status == cudaSuccess ? runtime().n_devices : 0;
        return runtime().device_status;
    }
    const char* in_environment = std::getenv("FACENET_FAST_EMULATED_DEVICES");
    n = in_environment == nullptr ? 1 : std::atoi(in_environment);
    return n > 0 ? cudaSuccess : cudaErrorNoDevice;
}

inline cudaError_t need_device(int ordinal = current_device) {
    int n = 0;
    const cudaError_t status = count_devices(n);
    if (status != cudaSuccess) { return status; }
    return ordinal < 0 || ordinal >= n ? cudaErrorInvalidDevice : cudaSuccess;
}

inline bool is_strict() { return std::getenv("FACENET_FAST_EMULATED_STRICT") != nullptr; }

// What holds the byte; null: not the runtime's.
inline const std::pair<const std::uintptr_t, Allocation>* find(const void* pointer) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    auto found = runtime().allocations.upper_bound(address);
    if (found == runtime().allocations.begin()) { return nullptr; }
    --found;
    return address - found->first < found->second.n_bytes ? &*found : nullptr;
}

inline cudaError_t allocate(void** pointer, std::size_t n_bytes, cudaMemoryType type) {
    if (pointer == nullptr) { return cudaErrorInvalidValue; }
    *pointer = nullptr;
    if (const cudaError_t status = need_device(); status != cudaSuccess || n_bytes == 0) { return status; }
    Runtime& all = runtime();
    const bool of_device = type == cudaMemoryTypeDevice;
    if (of_device && (all.live_bytes >= all.limit || n_bytes > all.limit - all.live_bytes)) {
        return cudaErrorMemoryAllocation;
    }
    // Each of its own and no larger than asked for, so that AddressSanitizer sees who leaves it.
    void* memory = ::operator new(n_bytes, kAlignment, std::nothrow);
    if (memory == nullptr) { return cudaErrorMemoryAllocation; }
    std::memset(memory, kPoison, n_bytes);
    all.allocations[reinterpret_cast<std::uintptr_t>(memory)] = {n_bytes, type, current_device};
    (of_device ? all.live_bytes : all.live_host_bytes) += n_bytes;
    *pointer = memory;
    return cudaSuccess;
}

inline cudaError_t release(void* pointer, cudaMemoryType type) {
    if (pointer == nullptr) { return cudaSuccess; }
    const bool of_device = type == cudaMemoryTypeDevice;
    Runtime& all = runtime();
    const auto found = all.allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
    if (found == all.allocations.end() || found->second.type != type) {
        fail("%s(%p), which is not %s's or was freed before", of_device ? "cudaFree" : "cudaFreeHost", pointer,
             of_device ? "cudaMalloc" : "cudaHostAlloc");
    }
    (of_device ? all.live_bytes : all.live_host_bytes) -= found->second.n_bytes;
    all.allocations.erase(found);
    ::operator delete(pointer, kAlignment);
    return cudaSuccess;
}

// Whether n_bytes from here on may be what a copy says they are. Memory that is not the runtime's passes for the device's,
// since tests wrap the host's arrays so; unless the tests are strict.
inline bool may_copy(const void* pointer, std::size_t n_bytes, bool as_device) {
    const auto* found = find(pointer);
    if (found == nullptr) { return !as_device || !is_strict(); }
    const auto& [begin, allocation] = *found;
    return (as_device || allocation.type != cudaMemoryTypeDevice) &&
           n_bytes <= allocation.n_bytes - (reinterpret_cast<std::uintptr_t>(pointer) - begin);
}

inline cudaError_t need_stream(cudaStream_t stream) {
    if (const cudaError_t status = need_device(); status != cudaSuccess) { return status; }
    const bool is_known = stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread ||
                          runtime().streams.contains(stream);
    return is_known ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

inline cudaError_t copy(void* to, const void* from, std::size_t n_bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (const cudaError_t status = need_stream(stream); status != cudaSuccess || n_bytes == 0) { return status; }
    const bool any = kind == cudaMemcpyDefault;
    const bool to_device = any ? find(to) != nullptr : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = any ? find(from) != nullptr : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to == nullptr || from == nullptr || !may_copy(to, n_bytes, to_device) || !may_copy(from, n_bytes, from_device)) {
        return cudaErrorInvalidValue;
    }
    std::memcpy(to, from, n_bytes);
    return cudaSuccess;
}

inline cudaError_t fill(void* to, int value, std::size_t n_bytes, cudaStream_t stream) {
    if (const cudaError_t status = need_stream(stream); status != cudaSuccess || n_bytes == 0) { return status; }
    if (to == nullptr || !may_copy(to, n_bytes, true)) { return cudaErrorInvalidValue; }
    std::memset(to, value, n_bytes);
    return cudaSuccess;
}

inline cudaError_t launch(const cudaLaunchConfig_t& config, void (*body)(const void*), const void* arguments) {
    const auto locked = lock();
    if (const cudaError_t status = need_stream(config.stream); status != cudaSuccess) { return status; }
    const dim3 &grid = config.gridDim, &block = config.blockDim;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFF'FFFF || grid.y > 0xFFFF || grid.z > 0xFFFF ||
        block.x == 0 || block.y == 0 || block.z == 0 || std::uint64_t{block.x} * block.y * block.z > kMostThreads) {
        return cudaErrorInvalidConfiguration;
    }
    if (block.y != 1 || block.z != 1 || config.dynamicSmemBytes != 0 || config.numAttrs != 0) {
        return cudaErrorNotSupported;  // by this file
    }
    scheduler.body = body;
    scheduler.arguments = arguments;
    run_grid(grid, block.x);
    return cudaSuccess;
}

}  // namespace emulated_cuda

// -- what kernels see --------------------------------------------------------------------------------------------------
inline const uint3& threadIdx = emulated_cuda::indices.thread;
inline const uint3& blockIdx = emulated_cuda::indices.block;
inline const dim3& blockDim = emulated_cuda::indices.block_dim;
inline const dim3& gridDim = emulated_cuda::indices.grid_dim;
inline constexpr int warpSize = 32;

inline void __syncthreads() { emulated_cuda::wait_for_block(emulated_cuda::Call::kSyncthreads, false); }
inline int __syncthreads_count(int predicate) {
    return emulated_cuda::wait_for_block(emulated_cuda::Call::kSyncthreadsCount, predicate != 0);
}
inline int __syncthreads_or(int predicate) {
    return emulated_cuda::wait_for_block(emulated_cuda::Call::kSyncthreadsOr, predicate != 0);
}
inline int __syncthreads_and(int predicate) {
    return emulated_cuda::wait_for_block(emulated_cuda::Call::kSyncthreadsAnd, predicate != 0);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

inline void __syncwarp(unsigned mask = 0xFFFF'FFFF) { emulated_cuda::wait_for_warp(emulated_cuda::Call::kSyncwarp, mask); }
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return static_cast<unsigned>(emulated_cuda::wait_for_warp(emulated_cuda::Call::kBallot, mask, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate) {
    return static_cast<int>(emulated_cuda::wait_for_warp(emulated_cuda::Call::kAny, mask, predicate != 0));
}
inline int __all_sync(unsigned mask, int predicate) {
    return static_cast<int>(emulated_cuda::wait_for_warp(emulated_cuda::Call::kAll, mask, predicate != 0));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    return emulated_cuda::shuffle(emulated_cuda::Call::kShfl, mask, value, static_cast<unsigned>(lane), width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    return emulated_cuda::shuffle(emulated_cuda::Call::kShflXor, mask, value, static_cast<unsigned>(lanes), width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    return emulated_cuda::shuffle(emulated_cuda::Call::kShflUp, mask, value, distance, width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    return emulated_cuda::shuffle(emulated_cuda::Call::kShflDown, mask, value, distance, width);
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    __extension__ using Product = unsigned __int128;
    return static_cast<unsigned long long>(Product{a} * b >> 64);
}

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

template <class T>
T __ldg(const T* from) {
    return *from;
}

// Not fused: without an instruction for it, each would be a call into the library.
inline float __fmaf_rn(float a, float b, float c) { return a * b + c; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }

// Of CUDA's types and no others, so that what compiles here does there. Threads never run at once: plain memory will do.
namespace emulated_cuda {

template <class T, class... Types>
concept OneOf = (std::is_same_v<T, Types> || ...);

template <class T, class Change>
T change(T* at, Change change_of) {
    const T before = *at;
    *at = change_of(before);
    return before;
}

}  // namespace emulated_cuda

template <emulated_cuda::OneOf<int, unsigned, unsigned long long, float, double> T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
    return emulated_cuda::change(at, [&](T before) {
        if constexpr (std::is_same_v<T, int>) {
            return static_cast<int>(static_cast<unsigned>(before) + static_cast<unsigned>(value));  // wraps
        } else {
            return before + value;
        }
    });
}
template <emulated_cuda::OneOf<int, unsigned, long long, unsigned long long> T>
T atomicMax(T* at, std::type_identity_t<T> value) {
    return emulated_cuda::change(at, [&](T before) { return before < value ? value : before; });
}
template <emulated_cuda::OneOf<int, unsigned, long long, unsigned long long> T>
T atomicMin(T* at, std::type_identity_t<T> value) {
    return emulated_cuda::change(at, [&](T before) { return value < before ? value : before; });
}
template <emulated_cuda::OneOf<int, unsigned, unsigned long long> T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    return emulated_cuda::change(at, [&](T before) { return before == expected ? value : before; });
}
template <emulated_cuda::OneOf<int, unsigned, unsigned long long, float> T>
T atomicExch(T* at, std::type_identity_t<T> value) {
    return emulated_cuda::change(at, [&](T) { return value; });
}
template <emulated_cuda::OneOf<int, unsigned, unsigned long long> T>
T atomicOr(T* at, std::type_identity_t<T> value) {
    return emulated_cuda::change(at, [&](T before) { return before | value; });
}

// -- what the host calls -----------------------------------------------------------------------------------------------
inline const char* cudaGetErrorName(cudaError_t status) {
    switch (status) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
        case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
        case cudaErrorNoDevice: return "cudaErrorNoDevice";
        case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
        case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
        case cudaErrorNotSupported: return "cudaErrorNotSupported";
    }
    return "unrecognized error code";
}

inline const char* cudaGetErrorString(cudaError_t status) {
    switch (status) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorInvalidResourceHandle: return "invalid resource handle";
        case cudaErrorNotSupported: return "operation not supported";
    }
    return "unrecognized error code";
}

inline cudaError_t cudaPeekAtLastError() { return emulated_cuda::last_error; }
inline cudaError_t cudaGetLastError() { return std::exchange(emulated_cuda::last_error, cudaSuccess); }

inline cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

inline cudaError_t cudaDriverGetVersion(int* version) {
    const auto locked = emulated_cuda::lock();
    int n = 0;
    // No driver at all is one that is too old.
    *version = emulated_cuda::count_devices(n) == cudaErrorInsufficientDriver ? 0 : CUDART_VERSION;
    return cudaSuccess;
}

inline cudaError_t cudaGetDeviceCount(int* n) {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::remember(emulated_cuda::count_devices(*n));
}

inline cudaError_t cudaGetDevice(int* device) {
    const auto locked = emulated_cuda::lock();
    *device = emulated_cuda::current_device;
    return emulated_cuda::remember(emulated_cuda::need_device());
}

inline cudaError_t cudaSetDevice(int device) {
    const auto locked = emulated_cuda::lock();
    const cudaError_t status = emulated_cuda::need_device(device);
    if (status == cudaSuccess) { emulated_cuda::current_device = device; }
    return emulated_cuda::remember(status);
}

inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    const auto locked = emulated_cuda::lock();
    if (const cudaError_t status = emulated_cuda::need_device(device); status != cudaSuccess) {
        return emulated_cuda::remember(status);
    }
    *properties = {"emulated device", emulated_cuda::runtime().limit, 9, 0, 4};
    return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    const auto locked = emulated_cuda::lock();
    if (const cudaError_t status = emulated_cuda::need_device(device); status != cudaSuccess) {
        return emulated_cuda::remember(status);
    }
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = 4; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMajor: *value = 9; return cudaSuccess;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; return cudaSuccess;
    }
    return emulated_cuda::remember(cudaErrorInvalidValue);
}

inline cudaError_t cudaDeviceSynchronize() {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::remember(emulated_cuda::need_device());
}

inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    const auto locked = emulated_cuda::lock();
    const auto& all = emulated_cuda::runtime();
    *total = all.limit;
    *free = all.limit > all.live_bytes ? all.limit - all.live_bytes : 0;
    return emulated_cuda::remember(emulated_cuda::need_device());
}

inline cudaError_t cudaMalloc(void** pointer, std::size_t n_bytes) {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::remember(emulated_cuda::allocate(pointer, n_bytes, cudaMemoryTypeDevice));
}
template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t n_bytes) {
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, n_bytes);
    *pointer = static_cast<T*>(memory);
    return status;
}
inline cudaError_t cudaFree(void* pointer) {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::release(pointer, cudaMemoryTypeDevice);
}

inline cudaError_t cudaHostAlloc(void** pointer, std::size_t n_bytes, unsigned) {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::remember(emulated_cuda::allocate(pointer, n_bytes, cudaMemoryTypeHost));
}
template <class T>
cudaError_t cudaHostAlloc(T** pointer, std::size_t n_bytes, unsigned flags) {
    void* memory = nullptr;
    const cudaError_t status = cudaHostAlloc(&memory, n_bytes, flags);
    *pointer = static_cast<T*>(memory);
    return status;
}
inline cudaError_t cudaFreeHost(void* pointer) {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::release(pointer, cudaMemoryTypeHost);
}

inline cudaError_t cudaHostGetDevicePointer(void** on_device, void* on_host, unsigned) {
    const auto locked = emulated_cuda::lock();
    const auto* found = emulated_cuda::find(on_host);
    const bool is_pinned = found != nullptr && found->second.type == cudaMemoryTypeHost;
    *on_device = is_pinned ? on_host : nullptr;
    return emulated_cuda::remember(is_pinned ? cudaSuccess : cudaErrorInvalidValue);
}
template <class T>
cudaError_t cudaHostGetDevicePointer(T** on_device, void* on_host, unsigned flags) {
    void* memory = nullptr;
    const cudaError_t status = cudaHostGetDevicePointer(&memory, on_host, flags);
    *on_device = static_cast<T*>(memory);
    return status;
}

inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
    const auto locked = emulated_cuda::lock();
    if (const cudaError_t status = emulated_cuda::need_device(); status != cudaSuccess) {
        return emulated_cuda::remember(status);
    }
    void* here = const_cast<void*>(pointer);
    if (const auto* found = emulated_cuda::find(pointer); found != nullptr) {
        const auto& [n_bytes, type, device] = found->second;
        *attributes = {type, device, here, type == cudaMemoryTypeHost ? here : nullptr};
    } else if (emulated_cuda::is_strict() || pointer == nullptr) {
        *attributes = {cudaMemoryTypeUnregistered, -2, nullptr, here};
    } else {
        *attributes = {cudaMemoryTypeDevice, emulated_cuda::current_device, here, nullptr};
    }
    return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n_bytes, cudaMemcpyKind kind,
                                   cudaStream_t stream = nullptr) {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::remember(emulated_cuda::copy(to, from, n_bytes, kind, stream));
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t n_bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, n_bytes, kind);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t n_bytes, cudaStream_t stream = nullptr) {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::remember(emulated_cuda::fill(to, value, n_bytes, stream));
}
inline cudaError_t cudaMemset(void* to, int value, std::size_t n_bytes) { return cudaMemsetAsync(to, value, n_bytes); }

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    const auto locked = emulated_cuda::lock();
    if (const cudaError_t status = emulated_cuda::need_device(); status != cudaSuccess) {
        return emulated_cuda::remember(status);
    }
    emulated_cuda::runtime().streams.insert(*stream = new CUstream_st);
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const auto locked = emulated_cuda::lock();
    if (emulated_cuda::runtime().streams.erase(stream) == 0) {
        return emulated_cuda::remember(cudaErrorInvalidResourceHandle);
    }
    delete stream;
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const auto locked = emulated_cuda::lock();
    return emulated_cuda::remember(emulated_cuda::need_stream(stream));
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    const auto locked = emulated_cuda::lock();
    if (const cudaError_t status = emulated_cuda::need_device(); status != cudaSuccess) {
        return emulated_cuda::remember(status);
    }
    emulated_cuda::runtime().events.insert(*event = new CUevent_st);
    return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const auto locked = emulated_cuda::lock();
    if (emulated_cuda::runtime().events.erase(event) == 0) {
        return emulated_cuda::remember(cudaErrorInvalidResourceHandle);
    }
    delete event;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr) {
    const auto locked = emulated_cuda::lock();
    const cudaError_t status = emulated_cuda::need_stream(stream);
    if (status != cudaSuccess || !emulated_cuda::runtime().events.contains(event)) {
        return emulated_cuda::remember(status != cudaSuccess ? status : cudaErrorInvalidResourceHandle);
    }
    *event = {true, std::chrono::steady_clock::now()};
    return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const auto locked = emulated_cuda::lock();
    const bool is_known = emulated_cuda::runtime().events.contains(event);
    return emulated_cuda::remember(is_known ? cudaSuccess : cudaErrorInvalidResourceHandle);
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned = 0) {
    const cudaError_t status = cudaStreamSynchronize(stream);
    return status == cudaSuccess ? cudaEventSynchronize(event) : status;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    const auto locked = emulated_cuda::lock();
    const auto& events = emulated_cuda::runtime().events;
    if (!events.contains(begin) || !events.contains(end) || !begin->is_recorded || !end->is_recorded) {
        return emulated_cuda::remember(cudaErrorInvalidResourceHandle);
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
    return cudaSuccess;
}

// Arguments become the kernel's parameters once, and each thread has copies of those.
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
    static_assert((std::is_trivially_copyable_v<Parameters> && ...), "parameters travel to the device byte by byte");
    const auto launch = [&](Parameters... parameters) {
        const auto run = [&] { kernel(parameters...); };
        const auto body = [](const void* of) { (*static_cast<decltype(&run)>(of))(); };
        return emulated_cuda::remember(emulated_cuda::launch(*config, body, &run));
    };
    return launch(std::forward<Arguments>(arguments)...);
}
