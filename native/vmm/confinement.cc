#include "vmm/confinement.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <tuple>

#include "vmm/saveable_msrs.h"

namespace kvmsnap {

namespace {

// Intel SDM volume 3, 2.5 (control registers), 2.2.1 (EFER), 3.4.5 and 3.5 (descriptors), 4.5
// (paging).
constexpr uint64_t kCr0Protection = 1;
constexpr uint64_t kCr4Vmx = uint64_t{1} << 13;
constexpr uint64_t kCr4Cet = uint64_t{1} << 23;
constexpr uint64_t kCr4UserInterrupts = uint64_t{1} << 25;
constexpr uint64_t kCr4Fred = uint64_t{1} << 32;
constexpr uint64_t kCr4FiveLevels = uint64_t{1} << 12;
constexpr uint64_t kEferSyscall = 1;
constexpr uint64_t kEferLongModeActive = uint64_t{1} << 10;
constexpr uint64_t kEferSvm = uint64_t{1} << 12;
constexpr uint64_t kRflagsVirtual8086 = uint64_t{1} << 17;

constexpr uint64_t kEntryPresent = 1;
constexpr uint64_t kEntryUser = 4;
constexpr uint64_t kEntryLarge = uint64_t{1} << 7;
constexpr uint64_t kEntryAddress = 0x000FFFFFFFFFF000;
constexpr unsigned kEntries = 512;
constexpr unsigned kLargestLeaf = 3;
constexpr unsigned kTopLevel = 4;
/// Enough for 256 MiB in 4 KiB pages. A guest with more is taken for one with a kernel.
constexpr size_t kMostTables = 160;

// Where KVM's interrupt controllers are, unless the guest has moved them.
constexpr uint64_t kIoapic = 0xFEC00000;
constexpr uint64_t kLapic = 0xFEE00000;

// Call gates, task gates and TSSs have S = 0, and only those of DPL 3 are for ring 3 to use.
constexpr uint64_t kDescriptorPresent = uint64_t{1} << 47;
constexpr uint64_t kDescriptorNotSystem = uint64_t{1} << 44;
constexpr unsigned kDescriptorDplShift = 45;

// Intel SDM volume 4, AMD APM volume 2 appendix A. What counts events goes on counting in ring 3.
constexpr uint32_t kSysenterCs = 0x174;
constexpr std::array<std::pair<uint32_t, uint32_t>, 4> kCounterControls = {
    {{0x186, 0x18D}, {0x38D, 0x38D}, {0xC0010000, 0xC0010003}, {0xC0010200, 0xC001020F}}};
constexpr uint32_t kAmdCounterControls = 0xC0010200;

// Intel SDM volume 3, 11.5.1: the local vector table, and its delivery modes in bits 10:8, as the
// IOAPIC has them too (82093AA, 3.2.4). An NMI finds no handler either.
constexpr std::array<size_t, 7> kLocalVectors = {0x2F0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370};
constexpr unsigned kDeliveryModeShift = 8;
constexpr std::array kHarmlessModes = {0u, 1u, 4u, 7u};  // Fixed, lowest priority, NMI, ExtINT.

// Not SMI and INIT, which lead out of ring 3 without a gate.
bool is_harmless(uint64_t vector) {
  unsigned mode = static_cast<unsigned>(vector >> kDeliveryModeShift & 7);
  return std::find(kHarmlessModes.begin(), kHarmlessModes.end(), mode) != kHarmlessModes.end();
}

bool is_harmless(const kvm_ioapic_state& ioapic) {
  return ioapic.base_address == kIoapic &&
         std::all_of(std::begin(ioapic.redirtbl), std::end(ioapic.redirtbl),
                     [](const auto& entry) { return is_harmless(entry.bits); });
}

struct NoProof {};

class Prover {
 public:
  Prover(const VcpuState& vcpu, bool irqchip, const GuestMemory& memory)
      : vcpu_(vcpu), irqchip_(irqchip), memory_(memory) {
    sregs_ = section<kvm_sregs2>(vcpu, VcpuSection::Sregs2);
    regs_ = section<kvm_regs>(vcpu, VcpuSection::Regs);
    const std::vector<uint8_t>& bytes = vcpu[VcpuSection::Msrs];
    msrs_.resize(bytes.size() / sizeof(kvm_msr_entry));
    if (!msrs_.empty()) {
      std::memcpy(msrs_.data(), bytes.data(), msrs_.size() * sizeof(kvm_msr_entry));
    }
  }

  std::vector<uint64_t> pages() {
    require_ring_3();
    require_quiet_msrs();
    auto events = section<kvm_vcpu_events>(vcpu_, VcpuSection::VcpuEvents);
    require(events.smi.smm == 0 && events.smi.pending == 0 && events.smi.latched_init == 0);
    if (irqchip_) require_quiet_lapic(vcpu_[VcpuSection::Lapic]);
    walk(sregs_.cr3 & kEntryAddress, kTopLevel, true);
    require_empty(sregs_.idt);
    require_no_gate(sregs_.gdt);
    return {pages_.begin(), pages_.end()};
  }

 private:
  using Table = std::array<uint64_t, kEntries>;

  static void require(bool condition) {
    if (!condition) throw NoProof{};
  }

  template <typename T>
  static T section(const VcpuState& vcpu, VcpuSection which) {
    require(vcpu[which].size() == sizeof(T));
    T value;
    std::memcpy(&value, vcpu[which].data(), sizeof value);
    return value;
  }

  void require_ring_3() const {
    require((sregs_.cr0 & kCr0Protection) != 0 && (regs_.rflags & kRflagsVirtual8086) == 0);
    require(sregs_.ss.dpl == 3 && (sregs_.cs.selector & 3) == 3);
    // Outside of long mode IRET switches tasks, to wherever a TSS in the guest's memory says.
    require((sregs_.efer & kEferLongModeActive) != 0);
    constexpr uint64_t kMore = kCr4Vmx | kCr4Cet | kCr4UserInterrupts | kCr4Fred | kCr4FiveLevels;
    require((sregs_.cr4 & kMore) == 0);
    require((sregs_.efer & (kEferSyscall | kEferSvm)) == 0);
    require(!irqchip_ || (sregs_.apic_base & kEntryAddress) == kLapic);
    require(sregs_.ldt.unusable != 0 || sregs_.ldt.present == 0);
  }

  void require_quiet_msrs() const {
    bool sysenter_known = false;
    for (const kvm_msr_entry& msr : msrs_) {
      if (msr.index == kSysenterCs) sysenter_known = true;
      require(msr.index != kSysenterCs || msr.data == 0);
      for (auto [first, last] : kCounterControls) {
        // AMD's are even; the odd ones between them are the counters.
        bool counter = first == kAmdCounterControls && msr.index % 2 != 0;
        bool control = msr.index >= first && msr.index <= last && !counter;
        require(!control || msr.data == 0);
      }
    }
    require(sysenter_known);
  }

  static void require_quiet_lapic(const std::vector<uint8_t>& lapic) {
    require(lapic.size() == sizeof(kvm_lapic_state));
    for (size_t at : kLocalVectors) {
      uint32_t vector;
      std::memcpy(&vector, lapic.data() + at, sizeof vector);
      require(is_harmless(vector));
    }
  }

  Table table(uint64_t gpa) const {
    Table entries;
    try {
      memory_.read(gpa, {reinterpret_cast<uint8_t*>(entries.data()), sizeof entries});
    } catch (const Error&) {
      throw NoProof{};
    }
    return entries;
  }

  /// All tables under that one. One that is reached twice is walked once: what it maps is the same,
  /// and tables may point in circles.
  void walk(uint64_t gpa, unsigned level, bool user) {
    if (!walked_.insert({gpa, level, user}).second) return;
    require(walked_.size() <= kMostTables);
    pages_.insert(gpa);
    for (uint64_t entry : table(gpa)) {
      if ((entry & kEntryPresent) == 0) continue;
      bool open = user && (entry & kEntryUser) != 0;
      bool leaf = level == 1 || (level <= kLargestLeaf && (entry & kEntryLarge) != 0);
      if (!leaf) {
        walk(entry & kEntryAddress, level - 1, open);
      } else if (open) {
        require_no_controller(entry, size_of(level));
      }
    }
  }

  static uint64_t size_of(unsigned level) { return kPageSize << (9 * (level - 1)); }

  void require_no_controller(uint64_t leaf, uint64_t size) const {
    if (!irqchip_) return;
    uint64_t start = leaf & kEntryAddress & ~(size - 1);
    for (uint64_t controller : {kIoapic, kLapic}) {
      require(controller + kPageSize <= start || start + size <= controller);
    }
  }

  uint64_t physical(uint64_t linear) const {
    uint64_t at = sregs_.cr3 & kEntryAddress;
    for (unsigned level = kTopLevel;; level--) {
      uint64_t size = size_of(level);
      uint64_t entry = table(at)[linear / size % kEntries];
      require((entry & kEntryPresent) != 0);
      at = entry & kEntryAddress;
      if (level == 1 || (level <= kLargestLeaf && (entry & kEntryLarge) != 0)) {
        return (at & ~(size - 1)) | (linear & (size - 1));
      }
    }
  }

  /// The bytes of a descriptor table, whose pages are noted.
  std::vector<uint8_t> read(const kvm_dtable& table) {
    std::vector<uint8_t> bytes(size_t{table.limit} + 1);
    for (size_t done = 0; done < bytes.size();) {
      uint64_t gpa = physical(table.base + done);
      size_t length = std::min<size_t>(bytes.size() - done, kPageSize - gpa % kPageSize);
      try {
        memory_.read(gpa, {bytes.data() + done, length});
      } catch (const Error&) {
        throw NoProof{};
      }
      pages_.insert(gpa / kPageSize * kPageSize);
      done += length;
    }
    return bytes;
  }

  void require_empty(const kvm_dtable& table) {
    std::vector<uint8_t> bytes = read(table);
    require(std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; }));
  }

  void require_no_gate(const kvm_dtable& table) {
    std::vector<uint8_t> bytes = read(table);
    for (size_t at = 0; at + sizeof(uint64_t) <= bytes.size(); at += sizeof(uint64_t)) {
      uint64_t descriptor;
      std::memcpy(&descriptor, bytes.data() + at, sizeof descriptor);
      bool system =
          (descriptor & kDescriptorPresent) != 0 && (descriptor & kDescriptorNotSystem) == 0;
      require(!system || (descriptor >> kDescriptorDplShift & 3) != 3);
    }
  }

  const VcpuState& vcpu_;
  bool irqchip_;
  const GuestMemory& memory_;
  kvm_sregs2 sregs_;
  kvm_regs regs_;
  std::vector<kvm_msr_entry> msrs_;
  std::set<std::tuple<uint64_t, unsigned, bool>> walked_;
  std::set<uint64_t> pages_;
};

bool touches(std::span<const GpaRange> ranges, uint64_t page) {
  auto after =
      std::upper_bound(ranges.begin(), ranges.end(), page,
                       [](uint64_t gpa, const GpaRange& range) { return gpa < range.gpa; });
  return after != ranges.begin() && std::prev(after)->end() > page;
}

}  // namespace

std::optional<std::vector<uint64_t>> pages_that_confine(const VcpuState& vcpu, bool irqchip,
                                                        const GuestMemory& memory) {
  try {
    return Prover(vcpu, irqchip, memory).pages();
  } catch (const NoProof&) {
    return std::nullopt;
  }
}

void Confinement::begin(std::shared_ptr<const MachineState> state) {
  if (state_ != state) known_ = false;
  state_ = std::move(state);
  breached_ = false;
}

bool Confinement::held(const std::shared_ptr<const MachineState>& state,
                       std::span<const GpaRange> written, const GuestMemory& memory) {
  if (breached_ || state_ != state || state == nullptr) return false;
  if (!known_) {
    const auto& irqchip = state->vm.irqchip;
    pages_.emplace();
    if (irqchip && !is_harmless(irqchip->ioapic.chip.ioapic)) pages_.reset();
    for (const VcpuState& vcpu : state->vcpus) {
      if (!pages_) break;
      auto pages = pages_that_confine(vcpu, irqchip.has_value(), memory);
      if (pages) {
        pages_->insert(pages_->end(), pages->begin(), pages->end());
      } else {
        pages_.reset();
      }
    }
    known_ = true;
  }
  return pages_ && std::none_of(pages_->begin(), pages_->end(),
                                [&](uint64_t page) { return touches(written, page); });
}

}  // namespace kvmsnap
