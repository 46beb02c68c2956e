#include "vmm/vcpu.h"

namespace kvmsnap {

std::span<uint8_t> exit_data(const Exit& exit) {
  if (const auto* io = std::get_if<IoExit>(&exit)) return io->data;
  if (const auto* mmio = std::get_if<MmioExit>(&exit)) return mmio->data;
  return {};
}

bool is_read(const Exit& exit) {
  if (const auto* io = std::get_if<IoExit>(&exit)) return !io->out;
  if (const auto* mmio = std::get_if<MmioExit>(&exit)) return !mmio->write;
  return false;
}

OwnedExit own(const Exit& exit) {
  std::span<uint8_t> data = exit_data(exit);
  return {exit, {data.begin(), data.end()}};
}

void Vcpu::step(bool single) {
  if (single == steps_) return;
  kvm_guest_debug debug = {};
  if (single) debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  fd_.set_guest_debug(debug);
  steps_ = single;
}

std::optional<Vcpu::Answer> Vcpu::wait_for_answer(const std::function<void(uint32_t)>& ask,
                                                  const std::function<bool()>& give_up) {
  std::unique_lock lock(mutex_);
  waiting_ = true;
  answer_.reset();
  uint32_t question = ++question_;
  lock.unlock();
  ask(question);
  lock.lock();
  answered_.wait(lock, [&] { return answer_.has_value() || give_up(); });
  waiting_ = false;
  return std::move(answer_);
}

bool Vcpu::answer(uint32_t question, Answer answer) {
  {
    std::lock_guard lock(mutex_);
    if (!waiting_ || question != question_ || answer_.has_value()) return false;
    answer_ = std::move(answer);
  }
  answered_.notify_all();
  return true;
}

void Vcpu::wake() {
  // See OutputBuffer::wake.
  { std::lock_guard lock(mutex_); }
  answered_.notify_all();
}

}  // namespace kvmsnap
