// The one place that asks the processor what it is.
#include <array>
#include <atomic>

#include "instruction_sets.hpp"

namespace simd {
namespace {

// Best first; what the machine lacks is left out.
struct Tables {
    std::array<const Kernels*, 3> rows{};
    std::size_t n = 0;

    Tables() noexcept {
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
            rows[n++] = &kAvx512;
        }
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) { rows[n++] = &kAvx2; }
#elif defined(__aarch64__)
        rows[n++] = &kNeon;
#endif
        rows[n++] = &kBaseline;
    }
};

const Tables& tables() noexcept {
    static const Tables found;
    return found;
}

std::atomic<const Kernels*>& chosen() noexcept {
    static std::atomic<const Kernels*> table = tables().rows[0];
    return table;
}

}  // namespace

const Kernels& kernels() noexcept { return *chosen().load(std::memory_order_relaxed); }

std::span<const Kernels* const> available() noexcept { return {tables().rows.data(), tables().n}; }

bool choose(std::string_view name) noexcept {
    for (const Kernels* table : available()) {
        if (name == table->name) {
            chosen().store(table, std::memory_order_relaxed);
            return true;
        }
    }
    return false;
}

}  // namespace simd
