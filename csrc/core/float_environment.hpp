// Arithmetic as the specification has it, whatever the caller's threads have been told.
#pragma once

#include <cfenv>

namespace core {

// While it lives, its thread rounds to nearest, takes denormals for what they are and traps nothing; then the thread gets
// back the modes it had, and the flags of exceptions as they were.
class DefaultFloatEnvironment {
  public:
    DefaultFloatEnvironment() noexcept {
        std::fegetenv(&before_);
        std::fesetenv(FE_DFL_ENV);
    }
    DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
    DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;
    ~DefaultFloatEnvironment() { std::fesetenv(&before_); }

  private:
    std::fenv_t before_;
};

}  // namespace core
