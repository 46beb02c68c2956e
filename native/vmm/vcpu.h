// One vCPU of a machine: its KVM handle, and what JavaScript owes it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <variant>
#include <vector>

#include "kvm/error.h"
#include "kvm/vcpu_fd.h"
#include "vmm/exit.h"
#include "vmm/vcpu_state.h"

namespace kvmsnap {

/// An exit with its own copy of the data, which may leave the vCPU's thread. The span inside `exit`
/// must not be used.
struct OwnedExit {
  Exit exit;
  std::vector<uint8_t> data;
};
OwnedExit own(const Exit& exit);

/// The bytes in kvm_run that an exit points to; empty for exits without.
std::span<uint8_t> exit_data(const Exit& exit);
/// Whether the guest waits for those bytes.
bool is_read(const Exit& exit);

class Vcpu {
 public:
  Vcpu(VcpuFd fd, uint32_t index, bool irqchip, std::vector<uint8_t> cpuid)
      : fd_(std::move(fd)), registers_(fd_, index, irqchip, std::move(cpuid)) {}

  const VcpuFd& fd() const { return fd_; }
  VcpuRegisters& registers() { return registers_; }

  /// Whether KVM_RUN returns after one instruction.
  void step(bool single);

  /// Waits for the answer to a claimed exit, or until `give_up()`: then there is none.
  using Answer = std::variant<std::vector<uint8_t>, Error>;
  /// `ask` gets the number of the question.
  std::optional<Answer> wait_for_answer(const std::function<void(uint32_t)>& ask,
                                        const std::function<bool()>& give_up);
  /// False when the vCPU does not wait for the answer to that question (any more).
  bool answer(uint32_t question, Answer answer);
  void wake();

  /// Its own thread is at work for it, in Machine::run_vcpu.
  bool in_run = false;
  /// To be called by that thread once it is parked. Who hears of an exit then finds the machine
  /// standing, and need not wait for this thread.
  std::function<void()> when_parked;
  /// The instruction of the last exit is not finished: KVM does that at the next KVM_RUN.
  bool incomplete = false;
  /// When it last stopped running.
  std::chrono::steady_clock::time_point stands_since = std::chrono::steady_clock::now();
  /// Where the answer to an exit that was handed out raw goes. Empty when none is open.
  std::span<uint8_t> open_data;

 private:
  VcpuFd fd_;
  VcpuRegisters registers_;
  bool steps_ = false;
  std::mutex mutex_;
  std::condition_variable answered_;
  bool waiting_ = false;
  uint32_t question_ = 0;
  std::optional<Answer> answer_;
};

}  // namespace kvmsnap
