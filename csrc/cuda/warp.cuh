// Lanes that work together: a warp's 32, or the eight that share a float64 distance.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace cuda {

inline constexpr unsigned kLanes = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFU;
inline constexpr unsigned kEight = 8;

__device__ inline unsigned lane() { return threadIdx.x % kLanes; }
__device__ inline unsigned warp() { return threadIdx.x / kLanes; }
__device__ inline unsigned lane_of_eight() { return threadIdx.x % kEight; }

// The eight of this lane, as a mask.
__device__ inline unsigned my_eight() { return 0xFFU << (lane() / kEight * kEight); }

__device__ inline unsigned lanes_before() { return (1U << lane()) - 1U; }

template <class T>
__device__ T sum_of_warp(T value) {
    for (unsigned half = kLanes / 2; half != 0; half /= 2) { value += __shfl_xor_sync(kAllLanes, value, half); }
    return value;
}

// The place in the warp of the rank-th lane that has a vote; the votes hold more than rank.
__device__ inline unsigned lane_of_rank(unsigned votes, unsigned rank) {
    for (; rank != 0; --rank) { votes &= votes - 1U; }
    return static_cast<unsigned>(__ffs(static_cast<int>(votes))) - 1U;
}

// Sums up what the threads of a block have; all of them get it. shared holds a value for each of its warps, and may be used
// again afterwards.
template <class T>
__device__ T sum_of_block(T value, T* shared) {
    value = sum_of_warp(value);
    if (lane() == 0) { shared[warp()] = value; }
    __syncthreads();
    T sum = T{};
    for (unsigned w = 0; w < blockDim.x / kLanes; ++w) { sum += shared[w]; }
    __syncthreads();
    return sum;
}

// The greatest of what the threads of a block have, as sum_of_block.
template <class T>
__device__ T greatest_of_block(T value, T* shared) {
    const auto greater = [](T a, T b) { return a < b ? b : a; };
    for (unsigned half = kLanes / 2; half != 0; half /= 2) { value = greater(value, __shfl_xor_sync(kAllLanes, value, half)); }
    if (lane() == 0) { shared[warp()] = value; }
    __syncthreads();
    value = shared[0];
    for (unsigned w = 1; w < blockDim.x / kLanes; ++w) { value = greater(value, shared[w]); }
    __syncthreads();
    return value;
}

// The sum of what the lanes up to this one have.
template <class T>
__device__ T sum_up_to(T value) {
    for (unsigned distance = 1; distance < kLanes; distance *= 2) {
        const T other = __shfl_up_sync(kAllLanes, value, distance);
        if (lane() >= distance) { value += other; }
    }
    return value;
}

// The sums of what the threads of a block before this one have, and of what all have.
template <class T>
struct Sums {
    T before, all;
};
template <class T>
__device__ Sums<T> sum_before(T value, T* shared) {
    const T up_to = sum_up_to(value);
    if (lane() == kLanes - 1) { shared[warp()] = up_to; }
    __syncthreads();
    T before = up_to - value, all = T{};
    for (unsigned w = 0; w < blockDim.x / kLanes; ++w) {
        if (w < warp()) { before += shared[w]; }
        all += shared[w];
    }
    __syncthreads();
    return {before, all};
}

}  // namespace cuda
