// The one place where threads work side by side.
#pragma once

#include <cstddef>

#include "float_environment.hpp"

#if defined(FACENET_FAST_STD_THREADS)
#include <atomic>
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace core {

// The threads that OpenMP would use: OMP_NUM_THREADS, else the cores that this process may run on.
inline int default_threads() noexcept {
#if defined(FACENET_FAST_STD_THREADS)
    return static_cast<int>(std::thread::hardware_concurrency());
#else
    return omp_get_max_threads();
#endif
}

// Lets OpenMP's idle workers go, so that a forked child does not wait for threads that it has not got.
inline void release_threads() noexcept {
#if !defined(FACENET_FAST_STD_THREADS)
    omp_pause_resource_all(omp_pause_soft);
#endif
}

// Calls body(i, thread) for every i in [0, n), handing out chunk numbers at a time, in order: a body may wait for what one with
// a smaller i does. thread is below n_threads. The body must not throw. Other threads than the caller's compute in the default
// floating-point environment; the caller sees to its own. Thread sanitizers understand the standard library's threads and not
// those of OpenMP runtimes, so the sanitized build (FACENET_FAST_STD_THREADS) runs the same bodies on the former.
template <class Body>
void parallel_for(int n_threads, std::size_t n, std::size_t chunk, const Body& body) {
    if (n_threads == 1 || n <= chunk) {
        for (std::size_t i = 0; i < n; ++i) { body(i, std::size_t{0}); }
        return;
    }
#if defined(FACENET_FAST_STD_THREADS)
    std::atomic<std::size_t> next = 0;
    std::vector<std::jthread> workers;
    for (std::size_t thread = 0; thread < static_cast<std::size_t>(n_threads); ++thread) {
        workers.emplace_back([&, thread] {
            const DefaultFloatEnvironment environment;
            for (std::size_t begin = next.fetch_add(chunk); begin < n; begin = next.fetch_add(chunk)) {
                for (std::size_t i = begin; i < n && i < begin + chunk; ++i) { body(i, thread); }
            }
        });
    }
#else
#pragma omp parallel num_threads(n_threads)
    {
        const DefaultFloatEnvironment environment;
        const auto thread = static_cast<std::size_t>(omp_get_thread_num());
#pragma omp for schedule(monotonic : dynamic, chunk) nowait
        for (std::size_t i = 0; i < n; ++i) { body(i, thread); }
    }
#endif
}

}  // namespace core
