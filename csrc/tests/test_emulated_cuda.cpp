// The emulator that other tests rely on: kernels with known results, in every order of their threads, and what must end a
// program does. With --time it says what going from one thread to another takes.
#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"

namespace {

using emulated_cuda::Order;

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 n_blocks, unsigned n_threads, Arguments... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = n_blocks;
    config.blockDim = dim3(n_threads);
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

// Memory of the device that a test fills and reads as if it were the host's.
template <class T>
class Values {
  public:
    explicit Values(std::size_t n, T value = T{}) : n_(n) {
        check::that(cudaMalloc(&data_, n * sizeof(T)) == cudaSuccess, "memory for a test");
        std::fill_n(data_, n, value);
    }
    Values(const Values&) = delete;
    Values& operator=(const Values&) = delete;
    ~Values() { cudaFree(data_); }

    T* data() const { return data_; }
    T& operator[](std::size_t i) const { return data_[i]; }
    std::size_t size() const { return n_; }

  private:
    T* data_ = nullptr;
    std::size_t n_;
};

// Runs a test in all orders, and in several of the random ones.
void in_every_order(const std::function<void()>& test) {
    for (const auto order : {Order::kForward, Order::kBackward}) {
        emulated_cuda::set_order(order);
        test();
    }
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
        emulated_cuda::set_order(Order::kShuffled, seed);
        test();
    }
    emulated_cuda::set_order(Order::kForward);
}

// -- barriers ----------------------------------------------------------------------------------------------------------
__global__ void __launch_bounds__(256) sum_of_blocks(const int* values, int n, long long* sums) {
    __shared__ long long partial[256];
    long long sum = 0;
    for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += static_cast<int>(gridDim.x * blockDim.x)) {
        sum += __ldg(values + i);
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half != 0; half /= 2) {
        if (threadIdx.x < half) { partial[threadIdx.x] += partial[threadIdx.x + half]; }
        __syncthreads();
    }
    if (threadIdx.x == 0) { sums[blockIdx.x] = partial[0]; }
}

void test_reduction() {
    constexpr int kN = 100'000;
    Values<int> values(kN);
    for (int i = 0; i < kN; ++i) { values[static_cast<std::size_t>(i)] = i % 1000; }
    for (const unsigned n_threads : {1u, 2u, 64u, 256u}) {
        Values<long long> sums(7, -1);
        check::that(launch(sum_of_blocks, 7, n_threads, values.data(), kN, sums.data()) == cudaSuccess, "a launch");
        long long sum = 0;
        for (std::size_t block = 0; block < sums.size(); ++block) {
            long long expected = 0;
            for (unsigned i = 0; i < kN; ++i) { expected += i / n_threads % 7 == block ? i % 1000 : 0; }
            check::that(sums[block] == expected, "a block's sum, of " + std::to_string(n_threads) + " threads");
            sum += sums[block];
        }
        check::that(sum == 49'950'000, "the sum of a grid");
    }
}

// Barriers in functions that are not inlined, about shared values whose addresses go nowhere: the compiler must not keep
// them in registers.
[[gnu::noinline]] __device__ void barrier_out_of_sight() { __syncthreads(); }

__global__ void pass_on(int n_rounds, int* out) {
    __shared__ int value;
    if (threadIdx.x == 0) { value = 0; }
    barrier_out_of_sight();
    for (int round = 0; round < n_rounds; ++round) {
        const int before = value;
        __syncthreads();
        if (threadIdx.x == static_cast<unsigned>(round) % blockDim.x) { value = before + round; }
        barrier_out_of_sight();
    }
    out[threadIdx.x] = value;
}

void test_shared_values() {
    Values<int> out(96, -1);
    check::that(launch(pass_on, 1, 96, 1000, out.data()) == cudaSuccess, "a launch");
    for (std::size_t i = 0; i < out.size(); ++i) { check::that(out[i] == 499'500, "a value that threads pass on"); }
}

__global__ void without_a_barrier(int* out) {
    __shared__ int values[256];
    values[threadIdx.x] = -1;
    __syncthreads();
    values[threadIdx.x] = static_cast<int>(threadIdx.x);
    // Here a barrier is missing.
    out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

// The orders are what finds a missing barrier; so they have to differ.
void test_missing_barrier() {
    const auto results = [](Order order, std::uint64_t seed) {
        Values<int> out(256);
        emulated_cuda::set_order(order, seed);
        check::that(launch(without_a_barrier, 1, 256, out.data()) == cudaSuccess, "a launch");
        emulated_cuda::set_order(Order::kForward);
        return std::vector<int>(out.data(), out.data() + out.size());
    };
    const auto forward = results(Order::kForward, 0), backward = results(Order::kBackward, 0);
    for (int i = 0; i < 256; ++i) {
        const auto at = static_cast<std::size_t>(i);
        check::that(forward[at] == (i == 255 ? 0 : -1), "forward, the next thread has not written yet");
        check::that(backward[at] == (i == 255 ? -1 : i + 1), "backward, the next thread has written");
    }
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
        const auto shuffled = results(Order::kShuffled, seed);
        check::that(shuffled != forward && shuffled != backward, "shuffled, an order of its own");
        check::that(shuffled == results(Order::kShuffled, seed), "the same seed, the same order");
        check::that(shuffled != results(Order::kShuffled, seed + 1), "another seed, another order");
    }
}

__global__ void count_and_vote(int* out) {
    const int thread = static_cast<int>(threadIdx.x);
    int ok = __syncthreads_count(thread % 3 == 0) == 34;  // 0, 3, ..., 99
    ok += __syncthreads_or(thread == 57) != 0;
    ok += __syncthreads_or(thread == 100) == 0;
    ok += __syncthreads_and(thread < 100) != 0;
    ok += __syncthreads_and(thread != 57) == 0;
    ok += __syncthreads_count(0) == 0;
    ok += __syncthreads_count(5) == 100;
    out[thread] = ok;
}

void test_votes_of_blocks() {
    Values<int> out(100);
    check::that(launch(count_and_vote, 1, 100, out.data()) == cudaSuccess, "a launch");
    for (std::size_t i = 0; i < out.size(); ++i) { check::that(out[i] == 7, "what barriers count"); }
}

// Thread i ends after i / 10 barriers.
__global__ void end_early(int* out) {
    for (unsigned i = 0; i < threadIdx.x / 10; ++i) {
        out[threadIdx.x] = __syncthreads_count(1);
    }
}

void test_ended_threads() {
    Values<int> out(200, -1);
    check::that(launch(end_early, 1, 200, out.data()) == cudaSuccess, "a launch");
    for (int i = 0; i < 200; ++i) {
        check::that(out[static_cast<std::size_t>(i)] == (i < 10 ? -1 : 200 - i / 10 * 10),
                    "a barrier counts those that have not ended");
    }
}

__global__ void ids(uint3* threads, uint3* blocks, int* n_visits) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned at = block * blockDim.x + threadIdx.x;
    threads[at] = threadIdx;
    blocks[at] = blockIdx;
    atomicAdd(&n_visits[at], blockDim.y == 1 && blockDim.z == 1 && warpSize == 32 ? 1 : 100);
}

void test_grids() {
    for (const dim3 grid : {dim3(5), dim3(3, 4), dim3(1, 7), dim3(2, 3, 4)}) {
        const std::size_t n = std::size_t{grid.x} * grid.y * grid.z * 33;
        Values<uint3> threads(n), blocks(n);
        Values<int> n_visits(n);
        check::that(launch(ids, grid, 33, threads.data(), blocks.data(), n_visits.data()) == cudaSuccess, "a launch");
        std::size_t at = 0;
        for (unsigned z = 0; z < grid.z; ++z) {
            for (unsigned y = 0; y < grid.y; ++y) {
                for (unsigned x = 0; x < grid.x; ++x) {
                    for (unsigned thread = 0; thread < 33; ++thread, ++at) {
                        check::that(n_visits[at] == 1 && threads[at].x == thread && threads[at].y == 0 && threads[at].z == 0,
                                    "each thread of a grid runs once");
                        check::that(blocks[at].x == x && blocks[at].y == y && blocks[at].z == z, "the block of a thread");
                    }
                }
            }
        }
    }
}

__global__ void list_blocks(unsigned* n, unsigned* out) {
    if (threadIdx.x == 0) { out[atomicAdd(n, 1)] = blockIdx.x; }
}

void test_orders_of_blocks() {
    const auto blocks = [](Order order, std::uint64_t seed) {
        Values<unsigned> n(1), out(50);
        emulated_cuda::set_order(order, seed);
        check::that(launch(list_blocks, 50, 32, n.data(), out.data()) == cudaSuccess, "a launch");
        emulated_cuda::set_order(Order::kForward);
        return std::vector<unsigned>(out.data(), out.data() + out.size());
    };
    std::vector<unsigned> all(50);
    for (unsigned i = 0; i < 50; ++i) { all[i] = i; }
    check::that(blocks(Order::kForward, 0) == all, "blocks forward");
    auto backward = blocks(Order::kBackward, 0);
    std::reverse(backward.begin(), backward.end());
    check::that(backward == all, "blocks backward");
    auto shuffled = blocks(Order::kShuffled, 1);
    check::that(shuffled != all && shuffled != backward, "blocks shuffled");
    std::sort(shuffled.begin(), shuffled.end());
    check::that(shuffled == all, "all blocks, shuffled");
}

// -- warps -------------------------------------------------------------------------------------------------------------
constexpr unsigned kAll = 0xFFFF'FFFF;

__global__ void ballots(unsigned* out) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned ok = __ballot_sync(kAll, lane % 3 == 0) == 0x49249249;
    ok += __ballot_sync(kAll, lane == warp) == 1u << warp;
    ok += __any_sync(kAll, lane == 31) != 0;
    ok += __any_sync(kAll, lane == 32) == 0;
    ok += __all_sync(kAll, lane < 32) != 0;
    ok += __all_sync(kAll, lane != 5) == 0;
    __syncwarp();
    const unsigned mine = 0xFFu << lane / 8 * 8;
    ok += __ballot_sync(mine, lane % 2) == (0xAAAA'AAAA & mine);
    ok += __all_sync(mine, lane / 8 == 2) == (lane / 8 == 2);
    ok += __any_sync(mine, lane / 8 == 2) == (lane / 8 == 2);
    __syncwarp(mine);
    ok += __ballot_sync(1u << lane, lane % 2) == lane % 2 << lane;  // alone
    out[threadIdx.x] = ok;
}

void test_ballots() {
    Values<unsigned> out(160);
    check::that(launch(ballots, 1, 160, out.data()) == cudaSuccess, "a launch");
    for (std::size_t i = 0; i < out.size(); ++i) { check::that(out[i] == 10, "what warps vote"); }
}

// Which lane each lane hears, of the values' own type; a value says whose it is.
template <class T>
__device__ int lane_of(T value) {
    return static_cast<int>((value - T{7}) / T{3});
}

template <class T>
__global__ void shuffles(int width, int* out) {
    const T mine = static_cast<T>(threadIdx.x % 32) * T{3} + T{7};
    for (int i = 0; i < 32; ++i) {
        int* at = out + (i * 32 + static_cast<int>(threadIdx.x)) * 4;
        at[0] = lane_of(__shfl_sync(kAll, mine, i, width));
        at[1] = lane_of(__shfl_xor_sync(kAll, mine, i, width));
        at[2] = lane_of(__shfl_up_sync(kAll, mine, static_cast<unsigned>(i), width));
        at[3] = lane_of(__shfl_down_sync(kAll, mine, static_cast<unsigned>(i), width));
    }
}

template <class T>
void test_shuffles_of(const std::string& type) {
    for (const int width : {32, 16, 8, 4, 1}) {
        Values<int> out(32 * 32 * 4, -1);
        check::that(launch(shuffles<T>, 1, 32, width, out.data()) == cudaSuccess, "a launch");
        for (int i = 0; i < 32; ++i) {
            for (int lane = 0; lane < 32; ++lane) {
                const int* at = out.data() + (i * 32 + lane) * 4;
                const int first = lane / width * width, end = first + width;
                const std::string what = " of " + type + ", width " + std::to_string(width);
                check::that(at[0] == first + i % width, "__shfl_sync" + what);
                check::that(at[1] == ((lane ^ i) < end ? lane ^ i : lane), "__shfl_xor_sync" + what);
                check::that(at[2] == (lane - i >= first ? lane - i : lane), "__shfl_up_sync" + what);
                check::that(at[3] == (lane + i < end ? lane + i : lane), "__shfl_down_sync" + what);
            }
        }
    }
}

void test_shuffles() {
    test_shuffles_of<int>("int");
    test_shuffles_of<unsigned>("unsigned");
    test_shuffles_of<float>("float");
    test_shuffles_of<double>("double");
    test_shuffles_of<long long>("long long");
    test_shuffles_of<unsigned long long>("unsigned long long");
    test_shuffles_of<std::int64_t>("int64_t");
}

__global__ void sums_of_doubles(const double* values, double* sums) {
    double sum = values[threadIdx.x];
    for (int lanes = 16; lanes != 0; lanes /= 2) { sum = __dadd_rn(sum, __shfl_xor_sync(kAll, sum, lanes)); }
    sums[threadIdx.x] = sum;
}

void test_sums_of_doubles() {
    Values<double> values(96), sums(96);
    for (std::size_t i = 0; i < 96; ++i) { values[i] = 1e15 + static_cast<double>(i); }  // no 4 bytes hold it
    check::that(launch(sums_of_doubles, 1, 96, values.data(), sums.data()) == cudaSuccess, "a launch");
    for (std::size_t i = 0; i < 96; ++i) {
        const double first = static_cast<double>(i / 32 * 32);
        check::that(sums[i] == 32e15 + 32 * first + 496, "a warp's sum of doubles");
    }
}

// Group g of 8 lanes meets 3 g times, each time in two calls, and all of them meet in the end.
__global__ void groups_of_8(int* out) {
    const int lane = static_cast<int>(threadIdx.x % 32), group = lane / 8;
    const unsigned mask = 0xFFu << group * 8;
    int sum = 0;
    for (int i = 0; i < 3 * group; ++i) {
        const int from = __shfl_sync(mask, lane * 100 + i, i, 8);
        if (__any_sync(mask, lane % 8 == i)) { sum += from; }
    }
    __syncwarp();
    out[threadIdx.x] = sum + __popc(__ballot_sync(kAll, sum != 0)) * 1'000'000;
}

void test_groups_of_8() {
    Values<int> out(64, -1);
    check::that(launch(groups_of_8, 1, 64, out.data()) == cudaSuccess, "a launch");
    for (int thread = 0; thread < 64; ++thread) {
        const int group = thread % 32 / 8;
        int expected = 24'000'000;
        for (int i = 0; i < std::min(3 * group, 8); ++i) { expected += (group * 8 + i) * 100 + i; }
        check::that(out[static_cast<std::size_t>(thread)] == expected, "groups of a warp, each at its own pace");
    }
}

// Lanes 8 to 31 wait for all while the others still meet among themselves.
__global__ void nested_masks(unsigned* out) {
    const unsigned lane = threadIdx.x % 32;
    unsigned ok = 0;
    if (lane < 8) {
        ok = __ballot_sync(0xFF, 1) == 0xFF;
        if (lane < 4) { ok &= __ballot_sync(0x0F, 1) == 0x0F; }
    }
    out[threadIdx.x] = __ballot_sync(kAll, static_cast<int>(ok));
}

void test_nested_masks() {
    Values<unsigned> out(32);
    check::that(launch(nested_masks, 1, 32, out.data()) == cudaSuccess, "a launch");
    for (std::size_t i = 0; i < out.size(); ++i) { check::that(out[i] == 0xFF, "masks within masks"); }
}

__global__ void read_outside_of_mask(unsigned* out) {
    if (threadIdx.x < 8) { out[threadIdx.x] = __shfl_down_sync(0xFF, threadIdx.x, 4); }
}

void test_outside_of_mask() {
    Values<unsigned> out(8);
    check::that(launch(read_outside_of_mask, 1, 32, out.data()) == cudaSuccess, "a launch");
    for (unsigned i = 0; i < 8; ++i) {
        check::that(out[i] == (i < 4 ? i + 4 : 0xC5C5C5C5), "nothing sensible from a lane outside of the mask");
    }
}

// -- numbers and atomics -----------------------------------------------------------------------------------------------
struct Atomics {
    int sum, max, min, exchanged;
    unsigned n, bits, winner;
    unsigned long long sum64, max64;
    long long min64;
    float sum32f;
    double sum64f;
    float last;
};

__global__ void atomics(Atomics* out, unsigned* slots) {
    const int thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    slots[atomicAdd(&out->n, 1)] = static_cast<unsigned>(thread);
    atomicAdd(&out->sum, thread);
    atomicMax(&out->max, thread % 97);
    atomicMin(&out->min, -thread);
    atomicExch(&out->exchanged, 5);
    atomicExch(&out->last, 0.5f);
    atomicOr(&out->bits, 1u << thread % 32);
    atomicCAS(&out->winner, 77u, static_cast<unsigned>(thread));
    atomicAdd(&out->sum64, 1ull << 33);
    atomicMax(&out->max64, (1ull << 40) + static_cast<unsigned>(thread));
    atomicMin(&out->min64, -(1ll << 40) - thread);
    atomicAdd(&out->sum32f, 0.25f);
    atomicAdd(&out->sum64f, 0.125);
}

void test_atomics() {
    constexpr int kN = 4 * 128;
    Values<Atomics> all(1);
    Values<unsigned> slots(kN);
    all[0].winner = 77;
    check::that(launch(atomics, 4, 128, all.data(), slots.data()) == cudaSuccess, "a launch");
    const Atomics& out = all[0];
    check::that(out.n == kN && out.sum == kN * (kN - 1) / 2 && out.max == 96 && out.min == 1 - kN, "atomics of int");
    check::that(out.exchanged == 5 && out.last == 0.5f && out.bits == kAll, "atomics that exchange and set bits");
    check::that(out.winner == slots[0], "only the first compare-and-swap does");
    check::that(out.sum64 == 1ull << 42 && out.max64 == (1ull << 40) + kN - 1 && out.min64 == 1 - kN - (1ll << 40),
                "atomics of 64 bits");
    check::that(out.sum32f == 128.0f && out.sum64f == 64.0, "atomics of floating point");
    std::sort(slots.data(), slots.data() + kN);
    for (unsigned i = 0; i < kN; ++i) { check::that(slots[i] == i, "each thread a slot of its own"); }

    int most = std::numeric_limits<int>::max();
    atomicAdd(&most, 1);
    check::that(most == std::numeric_limits<int>::min(), "a sum of int wraps");
}

void test_numbers() {
    check::that(__popc(0xF0F0) == 8 && __popcll(~0ull) == 64 && __popc(0) == 0, "bits counted");
    check::that(__ffs(0) == 0 && __ffs(8) == 4 && __ffsll(1ll << 40) == 41 && __ffsll(0) == 0, "the first bit");
    check::that(__clz(0) == 32 && __clz(1) == 31 && __clz(-1) == 0 && __clzll(1) == 63 && __clzll(0) == 64, "leading zeros");
    check::that(__umul64hi(1ull << 63, 6) == 3 && __umul64hi(~0ull, ~0ull) == ~0ull - 1, "the upper half of a product");
    check::that(__float_as_int(-0.0f) == std::numeric_limits<int>::min() && __float_as_uint(1.0f) == 0x3F80'0000,
                "a float's bits");
    check::that(__int_as_float(0x3F80'0000) == 1.0f && __uint_as_float(0x4000'0000) == 2.0f, "a float of bits");
    check::that(__longlong_as_double(__double_as_longlong(-1.5)) == -1.5, "a double's bits");
    check::that(__fmaf_rn(2.0f, 3.0f, 4.0f) == 10.0f && __fadd_rn(1.0f, 2.0f) == 3.0f && __fmul_rn(2.0f, 3.0f) == 6.0f &&
                    __fsub_rn(1.0f, 2.0f) == -1.0f && __fdiv_rn(1.0f, 2.0f) == 0.5f && __fsqrt_rn(9.0f) == 3.0f,
                "float32");
    check::that(__dadd_rn(1.0, 2.0) == 3.0 && __dsub_rn(1.0, 2.0) == -1.0 && __dmul_rn(2.0, 3.0) == 6.0 &&
                    __ddiv_rn(1.0, 2.0) == 0.5 && __dsqrt_rn(9.0) == 3.0,
                "float64");
    const float4 four = make_float4(1, 2, 3, 4);
    const int4 whole = make_int4(1, 2, 3, 4);
    check::that(four.x == 1 && four.w == 4 && whole.z == 3 && make_float2(1, 2).y == 2 && make_int2(1, 2).y == 2 &&
                    make_uint2(1, 2).x == 1 && sizeof(float4) == 16 && alignof(float2) == 8,
                "vectors");
}

// -- the runtime -------------------------------------------------------------------------------------------------------
void test_memory() {
    using emulated_cuda::live_bytes, emulated_cuda::live_host_bytes;
    const std::size_t before = live_bytes(), host_before = live_host_bytes();
    std::uint8_t* device = nullptr;
    void *host = nullptr, *alias = nullptr;
    check::that(cudaMalloc(&device, 1001) == cudaSuccess && live_bytes() == before + 1001, "bytes of the device");
    check::that(cudaHostAlloc(&host, 500, cudaHostAllocMapped) == cudaSuccess && live_host_bytes() == host_before + 500,
                "bytes of the host");
    check::that(live_bytes() == before + 1001, "pinned memory is not the device's");
    check::that(std::all_of(device, device + 1001, [](std::uint8_t byte) { return byte == 0xC5; }), "poison");
    check::that(cudaHostGetDevicePointer(&alias, host, 0) == cudaSuccess && alias == host, "the device's pointer to the host");
    check::that(cudaHostGetDevicePointer(&alias, device, 0) == cudaErrorInvalidValue, "no device's pointer to the device");

    std::vector<std::uint8_t> bytes(1001, 7), back(1001);
    check::that(cudaMemcpy(device, bytes.data(), 1001, cudaMemcpyHostToDevice) == cudaSuccess &&
                    cudaMemset(device + 1, 9, 2) == cudaSuccess &&
                    cudaMemcpyAsync(back.data(), device, 1001, cudaMemcpyDeviceToHost, cudaStreamPerThread) == cudaSuccess,
                "copies");
    check::that(back[0] == 7 && back[1] == 9 && back[2] == 9 && back[3] == 7 && back[1000] == 7, "what copies copy");
    check::that(cudaMemcpy(device, bytes.data(), 1002, cudaMemcpyHostToDevice) == cudaErrorInvalidValue, "a copy too long");
    check::that(cudaMemset(device + 1000, 0, 2) == cudaErrorInvalidValue, "too many bytes to set");
    check::that(cudaMemcpy(back.data(), device, 1, cudaMemcpyHostToHost) == cudaErrorInvalidValue, "the wrong direction");
    check::that(cudaMemcpy(nullptr, nullptr, 0, cudaMemcpyDeviceToDevice) == cudaSuccess, "nothing to copy");

    cudaPointerAttributes attributes = {};
    check::that(cudaPointerGetAttributes(&attributes, device + 1000) == cudaSuccess &&
                    attributes.type == cudaMemoryTypeDevice && attributes.device == 0 &&
                    attributes.devicePointer == device + 1000,
                "attributes of the device's memory");
    check::that(cudaPointerGetAttributes(&attributes, host) == cudaSuccess && attributes.type == cudaMemoryTypeHost &&
                    attributes.hostPointer == host && attributes.devicePointer == host,
                "attributes of pinned memory");
    check::that(cudaPointerGetAttributes(&attributes, bytes.data()) == cudaSuccess && attributes.type == cudaMemoryTypeDevice,
                "other memory passes for the device's");
    setenv("FACENET_FAST_EMULATED_STRICT", "1", 1);
    check::that(cudaPointerGetAttributes(&attributes, bytes.data()) == cudaSuccess &&
                    attributes.type == cudaMemoryTypeUnregistered && attributes.devicePointer == nullptr,
                "but not where tests are strict");
    check::that(cudaMemset(bytes.data(), 0, 1) == cudaErrorInvalidValue, "strict, too, about what copies touch");
    unsetenv("FACENET_FAST_EMULATED_STRICT");

    std::size_t free = 0, total = 0;
    emulated_cuda::set_memory_limit(before + 2000);
    check::that(cudaMemGetInfo(&free, &total) == cudaSuccess && free == 999 && total == before + 2000, "what is left");
    void* more = device;
    check::that(cudaMalloc(&more, 1000) == cudaErrorMemoryAllocation && more == nullptr, "more than is left");
    check::that(cudaPeekAtLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaErrorMemoryAllocation &&
                    cudaGetLastError() == cudaSuccess,
                "the last error");
    check::that(cudaMalloc(&more, 999) == cudaSuccess && cudaFree(more) == cudaSuccess, "all that is left");
    check::that(cudaMalloc(&more, 0) == cudaSuccess && more == nullptr && cudaFree(more) == cudaSuccess, "nothing");
    emulated_cuda::set_memory_limit();
    check::that(cudaMemGetInfo(&free, &total) == cudaSuccess && free == total - before - 1001, "no limit, much is left");
    check::that(cudaMalloc(&more, std::size_t{1} << 40) == cudaErrorMemoryAllocation, "more than any device has");
    cudaGetLastError();

    check::that(cudaFree(device) == cudaSuccess && cudaFreeHost(host) == cudaSuccess, "memory freed");
    check::that(live_bytes() == before && live_host_bytes() == host_before, "nothing left");
}

void test_devices() {
    int value = -1;
    cudaDeviceProp properties = {};
    check::that(cudaGetDeviceCount(&value) == cudaSuccess && value == 1, "one device");
    check::that(cudaGetDevice(&value) == cudaSuccess && value == 0, "the current device");
    check::that(cudaSetDevice(0) == cudaSuccess && cudaSetDevice(1) == cudaErrorInvalidDevice &&
                    cudaSetDevice(-1) == cudaErrorInvalidDevice,
                "no other device");
    check::that(cudaGetDeviceProperties(&properties, 0) == cudaSuccess &&
                    properties.name == std::string("emulated device") && properties.major == 9 && properties.minor == 0 &&
                    properties.multiProcessorCount == 4 && properties.totalGlobalMem == std::size_t{8} << 30,
                "what it is");
    check::that(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess && value == 4, "attributes");
    check::that(cudaRuntimeGetVersion(&value) == cudaSuccess && value == 13000, "the runtime's version");
    check::that(cudaDriverGetVersion(&value) == cudaSuccess && value == 13000, "the driver's version");
    cudaGetLastError();

    void* memory = nullptr;
    const auto is_none = [&](cudaError_t status, const std::string& what) {
        check::that(cudaGetDeviceCount(&value) == status && value == 0, "no device: " + what);
        check::that(cudaMalloc(&memory, 8) == status && cudaStreamSynchronize(nullptr) == status &&
                        cudaDeviceSynchronize() == status && cudaSetDevice(0) == status &&
                        launch(end_early, 1, 1, static_cast<int*>(nullptr)) == status && cudaGetLastError() == status,
                    "nothing works without: " + what);
    };
    setenv("FACENET_FAST_EMULATED_DEVICES", "0", 1);
    is_none(cudaErrorNoDevice, "the environment's");
    unsetenv("FACENET_FAST_EMULATED_DEVICES");
    emulated_cuda::set_device_count(0, cudaErrorInsufficientDriver);
    is_none(cudaErrorInsufficientDriver, "an old driver");
    check::that(cudaDriverGetVersion(&value) == cudaSuccess && value == 0, "an old driver's version");
    emulated_cuda::set_device_count(0);
    is_none(cudaErrorNoDevice, "none");
    emulated_cuda::set_device_count(2);
    cudaPointerAttributes attributes = {};
    check::that(cudaGetDeviceCount(&value) == cudaSuccess && value == 2 && cudaSetDevice(1) == cudaSuccess &&
                    cudaMalloc(&memory, 8) == cudaSuccess && cudaSetDevice(0) == cudaSuccess &&
                    cudaPointerGetAttributes(&attributes, memory) == cudaSuccess && attributes.device == 1,
                "two devices");
    cudaFree(memory);
    emulated_cuda::set_device_count(1);
    check::that(cudaGetErrorName(cudaErrorNoDevice) == std::string("cudaErrorNoDevice") &&
                    cudaGetErrorString(cudaErrorMemoryAllocation) == std::string("out of memory"),
                "errors in words");
}

void test_streams_and_events() {
    cudaStream_t stream = nullptr;
    cudaEvent_t begin = nullptr, end = nullptr;
    float milliseconds = -1;
    check::that(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess && stream != nullptr, "a stream");
    check::that(cudaEventCreate(&begin) == cudaSuccess && cudaEventCreateWithFlags(&end, cudaEventDefault) == cudaSuccess,
                "events");
    check::that(cudaEventElapsedTime(&milliseconds, begin, end) == cudaErrorInvalidResourceHandle, "events not recorded");
    check::that(cudaEventRecord(begin, stream) == cudaSuccess && cudaStreamWaitEvent(stream, begin) == cudaSuccess &&
                    cudaStreamSynchronize(stream) == cudaSuccess && cudaStreamSynchronize(cudaStreamLegacy) == cudaSuccess &&
                    cudaEventRecord(end) == cudaSuccess && cudaEventSynchronize(end) == cudaSuccess,
                "streams and events");
    check::that(cudaEventElapsedTime(&milliseconds, begin, end) == cudaSuccess && milliseconds >= 0, "time between events");
    check::that(cudaEventDestroy(begin) == cudaSuccess && cudaEventDestroy(end) == cudaSuccess &&
                    cudaStreamDestroy(stream) == cudaSuccess,
                "no more of them");
    check::that(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle &&
                    cudaEventRecord(begin) == cudaErrorInvalidResourceHandle,
                "what was destroyed");
    cudaGetLastError();
}

struct Parameters {
    const int* values;
    std::int64_t n;
    double factor;
};

__global__ void take(Parameters parameters, long long added, float scale, double* out) {
    parameters.n += threadIdx.x;  // a thread's own
    __syncthreads();
    out[threadIdx.x] = static_cast<double>(parameters.n + added) * parameters.factor * scale + parameters.values[0];
}

void test_launches() {
    Values<double> out(1024);
    const int values[] = {3};
    check::that(launch(take, 1, 1024, Parameters{values, 10, 0.5}, 1, 2.0f, out.data()) == cudaSuccess, "a launch");
    for (unsigned i = 0; i < 1024; ++i) { check::that(out[i] == 11.0 + i + 3.0, "a kernel's parameters"); }

    int* none = nullptr;
    for (const dim3 grid : {dim3(0), dim3(1, 0), dim3(1, 1 << 16), dim3(1u << 31)}) {
        check::that(launch(end_early, grid, 32, none) == cudaErrorInvalidConfiguration, "a grid that no device takes");
    }
    check::that(launch(end_early, 1, 0, none) == cudaErrorInvalidConfiguration, "no threads");
    check::that(launch(end_early, 1, 1025, none) == cudaErrorInvalidConfiguration, "too many threads");
    check::that(cudaGetLastError() == cudaErrorInvalidConfiguration, "the last error");
    cudaLaunchConfig_t config = {};
    config.blockDim = dim3(8, 2);
    check::that(cudaLaunchKernelEx(&config, end_early, none) == cudaErrorNotSupported, "a block of two dimensions");
    config.blockDim = dim3(8);
    config.dynamicSmemBytes = 8;
    check::that(cudaLaunchKernelEx(&config, end_early, none) == cudaErrorNotSupported, "dynamic shared memory");
    cudaGetLastError();
}

// -- what ends a program -----------------------------------------------------------------------------------------------
__global__ void wait_alone() {
    if (threadIdx.x < 40) {
        __syncthreads();
    } else if (threadIdx.x / 32 == 1) {
        __ballot_sync(kAll, 1);
    }
}
__global__ void wait_in_a_ring() {
    // Lane 0 waits for 1, that one for 2, and that one for 0.
    const unsigned lane = threadIdx.x;
    if (lane < 3) { __syncwarp(1u << lane | 1u << (lane + 1) % 3); }
}
__global__ void differ_in_masks() { __ballot_sync(threadIdx.x < 4 ? 0xFFu : kAll, 1); }
__global__ void lack_own_lane() { __syncwarp(0xFF); }
__global__ void differ_in_calls() {
    if (threadIdx.x % 2 == 0) {
        __any_sync(kAll, 1);
    } else {
        __all_sync(kAll, 1);
    }
}
__global__ void differ_in_barriers() {
    if (threadIdx.x % 2 == 0) {
        __syncthreads();
    } else {
        __syncthreads_or(1);
    }
}
__global__ void differ_in_sizes() {
    if (threadIdx.x % 2 == 0) {
        __shfl_sync(kAll, 1.0, 0);
    } else {
        __shfl_sync(kAll, 1.0f, 0);
    }
}
__global__ void name_an_ended_lane() {
    if (threadIdx.x == 3) { return; }
    __syncthreads();
    __syncwarp();
}
__global__ void end_while_others_wait() {
    if (threadIdx.x != 31) { __syncwarp(); }
}
__global__ void name_a_missing_lane() { __syncwarp(); }
__global__ void wrong_width() { __shfl_sync(kAll, 1, 0, 12); }

// A child does it, and dies of it with these words.
void ends(const std::string& what, const std::string& words, const std::function<void()>& action) {
    int ends_of_pipe[2];
    std::fflush(nullptr);
    if (pipe(ends_of_pipe) != 0) {
        check::that(false, "no pipe");
        return;
    }
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends_of_pipe[1], STDERR_FILENO);
        action();
        _exit(0);
    }
    close(ends_of_pipe[1]);
    std::string said;
    char buffer[512];
    for (ssize_t n; (n = read(ends_of_pipe[0], buffer, sizeof(buffer))) > 0;) {
        said.append(buffer, static_cast<std::size_t>(n));
    }
    close(ends_of_pipe[0]);
    int status = 0;
    const bool has_ended = waitpid(child, &status, 0) == child;
    check::that(has_ended && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, what + " aborts");
    check::that(said.find("emulated CUDA: ") != std::string::npos && said.find(words) != std::string::npos,
                what + " says so; it said: " + said);
}

void kernel_ends(const std::string& what, const std::string& words, void (*kernel)(), unsigned n_threads = 64) {
    ends(what, words, [=] { launch(kernel, 1, n_threads); });
}

void test_ends() {
    for (const char* words : {"deadlock in block 0, 0, 0 of 96 threads", "threads 0 to 39 in __syncthreads()",
                              "threads 40 to 63 in __ballot_sync(), mask 0xffffffff", "threads 64 to 95 ended"}) {
        kernel_ends("waiting where others do not", words, wait_alone, 96);
    }
    kernel_ends("waiting in a ring", "thread 2 in __syncwarp(), mask 0x00000005", wait_in_a_ring);
    kernel_ends("a mask that differs", "lanes 0x0000000f wait for this one in __ballot_sync() with mask 0x000000ff",
                differ_in_masks);
    kernel_ends("a mask without the caller", "lacks the caller's lane 8", lack_own_lane);
    kernel_ends("a call that differs", "__all_sync() with mask 0xffffffff, but lanes 0x00000001 wait with it in __any_sync()",
                differ_in_calls);
    kernel_ends("a barrier that differs", "__syncthreads_or() where other threads of the block wait in __syncthreads()",
                differ_in_barriers);
    kernel_ends("a value of another size", "__shfl_sync() of 4 bytes", differ_in_sizes);
    kernel_ends("a mask that names an ended lane", "lane 3 has ended", name_an_ended_lane);
    kernel_ends("a lane that others wait for", "lane 31 ends, but lanes 0x7fffffff wait for it", end_while_others_wait);
    kernel_ends("a mask that names no lane", "lane 16 is beyond the block's threads", name_a_missing_lane, 48);
    kernel_ends("a wrong width", "no power of two", wrong_width);
    ends("a barrier of the host's", "outside of a kernel", [] { __syncthreads(); });
    ends("memory freed that is not the device's", "cudaFree(", [] {
        int value = 0;
        cudaFree(&value);
    });
    ends("memory freed twice", "was freed before", [] {
        void* memory = nullptr;
        cudaHostAlloc(&memory, 8, cudaHostAllocDefault);
        cudaFreeHost(memory);
        cudaFreeHost(memory);
    });
}

// What the environment says counts where nobody has called set_order() before the first kernel.
void test_orders_of_the_environment() {
    const auto in_environment = [](const char* order) {
        setenv("FACENET_FAST_EMULATED_ORDER", order, 1);
        emulated_cuda::scheduler.is_order_known = false;
        Values<int> out(256);
        launch(without_a_barrier, 1, 256, out.data());
        unsetenv("FACENET_FAST_EMULATED_ORDER");
        emulated_cuda::set_order(Order::kForward);
        return std::count(out.data(), out.data() + out.size(), -1);
    };
    check::that(in_environment("forward") == 255, "the environment's order, forward");
    check::that(in_environment("backward") == 1, "the environment's order, backward");
    const auto n = in_environment("shuffled");
    check::that(n > 1 && n < 255, "the environment's order, shuffled");
    ends("an order that is none", "must be forward, backward or shuffled; got 'sideways'", [&] { in_environment("sideways"); });
}

// -- time --------------------------------------------------------------------------------------------------------------
__global__ void many_barriers(int n) {
    for (int i = 0; i < n; ++i) { __syncthreads(); }
}
__global__ void many_shuffles(int n, float* out) {
    float value = static_cast<float>(threadIdx.x);
    for (int i = 0; i < n; ++i) { value = __shfl_xor_sync(kAll, value, 1); }
    out[threadIdx.x] = value;
}

void report_time() {
    constexpr int kN = 20'000;
    Values<float> out(1024);
    for (const unsigned n_threads : {32u, 256u, 1024u}) {
        const auto nanoseconds = [&](auto run) {
            double best = 1e30;
            for (int i = 0; i < 5; ++i) {
                const auto begin = std::chrono::steady_clock::now();
                run();
                const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - begin;
                best = std::min(best, time.count() / kN / n_threads);
            }
            return best;
        };
        std::printf("%u threads: %.1f ns per thread and barrier, %.1f ns per thread and shuffle\n", n_threads,
                    nanoseconds([&] { launch(many_barriers, 1, n_threads, kN); }),
                    nanoseconds([&] { launch(many_shuffles, 1, n_threads, kN, out.data()); }));
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::string_view(argv[1]) == "--time") {
        report_time();
        return 0;
    }
    in_every_order([] {
        test_reduction();
        test_shared_values();
        test_votes_of_blocks();
        test_ended_threads();
        test_grids();
        test_ballots();
        test_sums_of_doubles();
        test_groups_of_8();
        test_nested_masks();
        test_outside_of_mask();
        test_atomics();
        test_launches();
    });
    test_shuffles();
    test_missing_barrier();
    test_orders_of_blocks();
    test_numbers();
    test_memory();
    test_devices();
    test_streams_and_events();
    test_ends();
    test_orders_of_the_environment();
    check::that(emulated_cuda::live_bytes() == 0 && emulated_cuda::live_host_bytes() == 0, "all memory freed");
    return check::report();
}
