// The one exception of the native code. It is caught at the N-API boundary and on vCPU threads and
// becomes a KvmsnapError there; `code` is one of lib/errors.ts.
#pragma once

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace kvmsnap {

class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message)
      : std::runtime_error(message), code_(std::move(code)) {}
  Error(std::string code, const std::string& message, std::string syscall, int error_number)
      : std::runtime_error(message),
        code_(std::move(code)),
        syscall_(std::move(syscall)),
        errno_(error_number) {}

  const std::string& code() const { return code_; }
  /// Empty unless a system call failed.
  const std::string& syscall() const { return syscall_; }
  /// 0 unless a system call failed.
  int error_number() const { return errno_; }

 private:
  std::string code_;
  std::string syscall_;
  int errno_ = 0;
};

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
