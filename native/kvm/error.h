// The one exception of the native code. It is caught at the N-API boundary and on vCPU threads and
// becomes a KvmsnapError there; `code` is one of lib/errors.ts.
#pragma once

#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace kvmsnap {

/// Copying one needs no memory, so that it can be kept wherever it is caught.
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message)
      : Error(std::move(code), message, std::string(), 0) {}
  Error(std::string code, const std::string& message, std::string syscall, int error_number)
      : std::runtime_error(message),
        names_(std::make_shared<const Names>(Names{std::move(code), std::move(syscall)})),
        errno_(error_number) {}

  const std::string& code() const { return names_->code; }
  /// Empty unless a system call failed.
  const std::string& syscall() const { return names_->syscall; }
  /// 0 unless a system call failed.
  int error_number() const { return errno_; }

 private:
  struct Names {
    std::string code;
    std::string syscall;
  };
  std::shared_ptr<const Names> names_;
  int errno_ = 0;
};

/// Made before anybody can need it.
inline const Error kNoMemory("ERR_SYSTEM", "memory is exhausted", "malloc", ENOMEM);

/// What was thrown, whatever it was, as an Error: for use in `catch (...)`.
inline Error current_error() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  } catch (const std::exception& error) {
    try {
      return Error("ERR_SYSTEM", error.what());
    } catch (...) {
      return kNoMemory;
    }
  } catch (...) {
    return kNoMemory;
  }
}

/// ERR_SYSTEM from `errno`; `hint` says what to do about it.
[[noreturn]] inline void throw_system(const char* syscall, const std::string& hint = {}) {
  int error_number = errno;
  std::string message = std::string(syscall) + ": " + std::strerror(error_number);
  if (!hint.empty()) message += " (" + hint + ")";
  throw Error("ERR_SYSTEM", message, syscall, error_number);
}

/// ERR_IOCTL from `errno`.
[[noreturn]] inline void throw_ioctl(const char* name, const std::string& hint = {}) {
  int error_number = errno;
  std::string message = std::string(name) + ": " + std::strerror(error_number);
  if (!hint.empty()) message += " (" + hint + ")";
  throw Error("ERR_IOCTL", message, name, error_number);
}

}  // namespace kvmsnap
