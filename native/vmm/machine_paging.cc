// Memory that comes on demand: what a machine makes of its pager.
#include "kvm/error.h"
#include "vmm/machine.h"

namespace kvmsnap {

namespace {

// Ordered by gpa, each page once.
std::vector<GpaRange> content_of(const Image& image) {
  std::vector<GpaRange> content;
  for (const Extent& extent : image.extents()) content.push_back({extent.gpa, extent.length});
  return content;
}

}  // namespace

void Machine::start_paging(PagingOptions options, const std::shared_ptr<const Image>& image) {
  std::vector<Pager::Memory> memory;
  for (const RegionSpec& spec : memory_.regions()) {
    memory.push_back({{spec.gpa, spec.size}, memory_.host(spec.slot)});
  }
  if (options.source == nullptr) options.source = std::make_shared<FilePageSource>(image);
  PagerEvents& events = *this;
  auto made =
      std::make_shared<Pager>(std::move(memory), content_of(*image), std::move(options), events);
  std::lock_guard lock(mutex_);
  pager_ = std::move(made);
}

std::shared_ptr<Pager> Machine::pager() const {
  std::lock_guard lock(mutex_);
  return pager_;
}

void Machine::enter_state() {
  std::shared_ptr<const MachineState> state = std::move(config_.state);
  if (state == nullptr) return;
  change([&] { apply_state(*state, &VcpuRegisters::load_new, config_.clock); });
  confinement_.begin(state);
  std::lock_guard lock(mutex_);
  if (status_ == Status::Created) stand_at(*state);
}

void Machine::read_memory(uint64_t gpa, std::span<uint8_t> bytes) {
  GuestMemory& memory = this->memory();
  if (auto paging = pager()) paging->require(gpa, bytes.size());
  memory.read(gpa, bytes);
}

void Machine::write_memory(uint64_t gpa, std::span<const uint8_t> bytes) {
  GuestMemory& memory = this->memory();
  if (auto paging = pager()) paging->require(gpa, bytes.size());
  memory.write(gpa, bytes);
}

void Machine::require_all_pages(const char* call) const {
  auto paging = pager();
  if (paging == nullptr || !paging->active()) return;
  throw Error("ERR_STATE", std::string(call) +
                               " is not possible while memory comes on demand: await pageIn() "
                               "first");
}

void Machine::abort_paging(const Error& why) {
  if (auto paging = pager()) paging->abort(why);
}

// Memory is about to be mapped anew, and whoever still waits for a page is turned away.
void Machine::drop_paging() {
  auto paging = pager();
  if (paging == nullptr) return;
  paging->stop(Error("ERR_STATE", "the machine was reset"));
  std::lock_guard lock(mutex_);
  pager_ = nullptr;
}

void Machine::paging_failed(const Error& error) { fail(error); }

void Machine::paging_ended(bool readable) {
  events_->paging_ended();
  if (readable) return;
  // Once every vCPU is out of the guest, which none enters again.
  try {
    crew_.submit([this](bool cancelled) {
      auto paging = pager();
      if (!cancelled && paging != nullptr) paging->reopen();
    });
  } catch (...) {
    // No thread to be had: memory stays closed.
  }
}

}  // namespace kvmsnap
