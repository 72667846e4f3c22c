// Checks that report where they fail and go on, so that one run shows all that is wrong.
#pragma once

#include <cstddef>
#include <cstdio>
#include <source_location>
#include <string>

namespace check {

inline std::size_t n_checks = 0;
inline std::size_t n_failures = 0;

inline void that(bool holds, const std::string& what, std::source_location where = std::source_location::current()) {
    ++n_checks;
    if (holds) { return; }
    // A fault in a kernel fails everywhere: the first few places say enough.
    if (++n_failures <= 20) { std::fprintf(stderr, "%s:%u: %s\n", where.file_name(), where.line(), what.c_str()); }
}

// What main() returns.
inline int report() {
    std::printf("%zu checks, %zu failed\n", n_checks, n_failures);
    return n_failures == 0 && n_checks != 0 ? 0 : 1;
}

}  // namespace check
