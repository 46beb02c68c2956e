// What shows that a vCPU never leaves ring 3, one condition at a time. No KVM: registers and tables
// are made up.
#include "vmm/confinement.h"

#include <functional>
#include <string>

#include "test/catch.h"
#include "vmm/struct_bytes.h"

namespace kvmsnap {

namespace {

using Pages = std::vector<uint64_t>;

// A guest's page tables, one of each level, its descriptor tables, and a page of its own. Linear
// addresses are physical ones; only that page and what a test adds is open to ring 3.
constexpr uint64_t kTop = 0x1000, kPointers = 0x2000, kDirectory = 0x3000, kLeaves = 0x4000;
constexpr uint64_t kIdt = 0x5000, kGdt = 0x6000, kOwn = 0x8000;
constexpr uint64_t kIdtLimit = 0xFFF, kGdtLimit = 7 * 8 - 1;
constexpr uint64_t kMemory = 4 << 20;
// More page tables, where a test needs them.
constexpr uint64_t kMoreTables = 0x10000;

constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kLarge = 1 << 7;
constexpr uint64_t kOpen = kPresent | kWritable | kUser;
constexpr uint64_t kKernels = kPresent | kWritable;

constexpr uint64_t kIoapicAt = 0xFEC00000, kLapicAt = 0xFEE00000;

// Descriptors: present, DPL, and the type with S above it, in bits 47, 46:45 and 44:40.
constexpr uint64_t descriptor(uint64_t type, uint64_t dpl, uint64_t present = 1) {
  return present << 47 | dpl << 45 | type << 40;
}
constexpr uint64_t kCode = 0x1B, kData = 0x13, kTss = 0x9, kCallGate = 0xC, kTaskGate = 0x5;

constexpr uint32_t kSysenterCs = 0x174;

struct Guest {
  GuestMemory memory;
  kvm_sregs2 sregs = {};
  kvm_regs regs = {};
  kvm_vcpu_events events = {};
  std::vector<kvm_msr_entry> msrs = {{.index = kSysenterCs}};
  std::vector<uint8_t> lapic = std::vector<uint8_t>(sizeof(kvm_lapic_state));
  bool irqchip = true;

  Guest() {
    memory.add({.slot = 0, .gpa = 0, .size = kMemory}, nullptr);
    sregs.cr0 = 0x80000001;
    sregs.cr3 = kTop;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    sregs.cs.selector = 0x2B;
    sregs.ss.dpl = 3;
    sregs.ldt.unusable = 1;
    sregs.apic_base = kLapicAt | 0x900;
    sregs.idt.base = kIdt;
    sregs.idt.limit = kIdtLimit;
    sregs.gdt.base = kGdt;
    sregs.gdt.limit = kGdtLimit;
    set(kTop, 0, kPointers | kOpen);
    set(kPointers, 0, kDirectory | kOpen);
    set(kDirectory, 0, kLeaves | kOpen);
    for (uint64_t at = kTop; at < kOwn; at += kPageSize)
      set(kLeaves, at / kPageSize, at | kKernels);
    set(kLeaves, kOwn / kPageSize, kOwn | kOpen);
    set(kGdt, 1, descriptor(kCode, 0));
    set(kGdt, 2, descriptor(kData, 0));
    set(kGdt, 3, descriptor(kTss, 0));
    set(kGdt, 5, descriptor(kCode, 3));
    set(kGdt, 6, descriptor(kData, 3));
  }

  void set(uint64_t table, uint64_t index, uint64_t entry) {
    memory.write(table + index * sizeof entry, to_bytes(entry));
  }

  /// Maps a linear address from 4 GiB down, with tables of its own, as a leaf of that level.
  void map_high(uint64_t gpa, uint64_t flags, unsigned level = 1, uint64_t upper_flags = kOpen) {
    uint64_t directory = kMoreTables, leaves = kMoreTables + kPageSize;
    if (level == 3) return set(kPointers, gpa >> 30, gpa | flags | kLarge);
    set(kPointers, gpa >> 30, directory | upper_flags);
    if (level == 2) return set(directory, gpa >> 21 & 511, gpa | flags | kLarge);
    set(directory, gpa >> 21 & 511, leaves | kOpen);
    set(leaves, gpa >> 12 & 511, gpa | flags);
  }

  VcpuState state() const {
    VcpuState vcpu;
    vcpu[VcpuSection::Sregs2] = to_bytes(sregs);
    vcpu[VcpuSection::Regs] = to_bytes(regs);
    vcpu[VcpuSection::VcpuEvents] = to_bytes(events);
    vcpu[VcpuSection::Msrs] = to_bytes(msrs);
    vcpu[VcpuSection::Lapic] = lapic;
    return vcpu;
  }

  std::optional<Pages> pages() const { return pages_that_confine(state(), irqchip, memory); }
  bool confined() const { return pages().has_value(); }
};

struct Change {
  const char* what;
  std::function<void(Guest&)> make;
};

/// Each of these by itself is a way out, in the eyes of the prover.
void require_each_frees(const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    INFO(change.what);
    Guest guest;
    REQUIRE(guest.confined());
    change.make(guest);
    CHECK_FALSE(guest.confined());
  }
}

void require_none_frees(const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    INFO(change.what);
    Guest guest;
    change.make(guest);
    CHECK(guest.confined());
  }
}

}  // namespace

TEST_CASE(
    "a vCPU in ring 3 is confined by its page tables and descriptor tables, and by those only") {
  Guest guest;
  CHECK(guest.pages() == Pages{kTop, kPointers, kDirectory, kLeaves, kIdt, kGdt});
  guest.irqchip = false;
  CHECK(guest.pages() == Pages{kTop, kPointers, kDirectory, kLeaves, kIdt, kGdt});
}

TEST_CASE("who is not in ring 3 of long mode is not confined") {
  require_each_frees({
      {"real mode", [](Guest& guest) { guest.sregs.cr0 &= ~uint64_t{1}; }},
      {"virtual 8086", [](Guest& guest) { guest.regs.rflags |= 1 << 17; }},
      {"a stack of ring 0", [](Guest& guest) { guest.sregs.ss.dpl = 0; }},
      {"code of ring 0", [](Guest& guest) { guest.sregs.cs.selector = 0x28; }},
      {"code of ring 1", [](Guest& guest) { guest.sregs.cs.selector = 0x29; }},
      {"not in long mode", [](Guest& guest) { guest.sregs.efer = 0x100; }},
  });
}

TEST_CASE("what the prover knows nothing of is not confined") {
  require_each_frees({
      {"VMX", [](Guest& guest) { guest.sregs.cr4 |= 1 << 13; }},
      {"shadow stacks", [](Guest& guest) { guest.sregs.cr4 |= 1 << 23; }},
      {"user interrupts", [](Guest& guest) { guest.sregs.cr4 |= 1 << 25; }},
      {"FRED", [](Guest& guest) { guest.sregs.cr4 |= uint64_t{1} << 32; }},
      {"page tables of five levels", [](Guest& guest) { guest.sregs.cr4 |= 1 << 12; }},
      {"SVM", [](Guest& guest) { guest.sregs.efer |= 1 << 12; }},
      {"an LDT",
       [](Guest& guest) {
         guest.sregs.ldt.unusable = 0;
         guest.sregs.ldt.present = 1;
       }},
  });
  require_none_frees({
      {"an LDT that is not present", [](Guest& guest) { guest.sregs.ldt.unusable = 0; }},
      {"an LDT that is not usable", [](Guest& guest) { guest.sregs.ldt.present = 1; }},
  });
}

TEST_CASE("SYSCALL leads out of ring 3") {
  require_each_frees({{"EFER.SCE", [](Guest& guest) { guest.sregs.efer |= 1; }}});
}

TEST_CASE("SYSENTER leads out of ring 3, and is known to be off") {
  require_each_frees({
      {"a code segment for it", [](Guest& guest) { guest.msrs[0].data = 8; }},
      {"nothing known of it", [](Guest& guest) { guest.msrs.clear(); }},
      {"nothing known of it among others", [](Guest& guest) { guest.msrs[0].index = 0x175; }},
  });
}

TEST_CASE("what counts events goes on counting in ring 3") {
  for (uint32_t index :
       {0x186u, 0x18Du, 0x38Du, 0xC0010000u, 0xC0010003u, 0xC0010200u, 0xC0010202u, 0xC001020Eu}) {
    INFO(hex(index));
    Guest guest;
    guest.msrs.push_back({.index = index});
    CHECK(guest.confined());
    guest.msrs.back().data = 1;
    CHECK_FALSE(guest.confined());
  }
  for (uint32_t index : {0x185u, 0x18Eu, 0x38Cu, 0x38Eu, 0xC0010004u, 0xC0010201u, 0xC001020Fu,
                         0xC0010210u, 0xC00101FFu}) {
    INFO(hex(index));
    Guest guest;
    guest.msrs.push_back({.index = index, .data = 1});
    CHECK(guest.confined());
  }
}

TEST_CASE("SMM and INIT lead out of ring 3") {
  require_each_frees({
      {"in SMM", [](Guest& guest) { guest.events.smi.smm = 1; }},
      {"an SMI pending", [](Guest& guest) { guest.events.smi.pending = 1; }},
      {"an INIT latched", [](Guest& guest) { guest.events.smi.latched_init = 1; }},
  });
}

TEST_CASE("the local vector table of the LAPIC can send SMI and INIT") {
  for (size_t at : {0x2F0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370}) {
    for (uint32_t mode = 0; mode < 8; mode++) {
      INFO(at << ", delivery mode " << mode);
      Guest guest;
      uint32_t vector = 0x10020 | mode << 8;
      std::memcpy(guest.lapic.data() + at, &vector, sizeof vector);
      bool harmless = mode == 0 || mode == 1 || mode == 4 || mode == 7;
      CHECK(guest.confined() == harmless);
      guest.irqchip = false;
      CHECK(guest.confined());
    }
  }
}

TEST_CASE("a LAPIC that is not where it is expected could be mapped") {
  Guest guest;
  guest.sregs.apic_base = 0xFED00000 | 0x900;
  CHECK_FALSE(guest.confined());
  guest.irqchip = false;
  CHECK(guest.confined());
}

TEST_CASE("a LAPIC or an IOAPIC that ring 3 may touch takes orders from it") {
  for (uint64_t controller : {kIoapicAt, kLapicAt}) {
    for (unsigned level : {1u, 2u, 3u}) {
      INFO(hex(controller) << " in a leaf of level " << level);
      uint64_t leaf = controller & ~((kPageSize << 9 * (level - 1)) - 1);
      Guest guest;
      guest.map_high(leaf, kOpen, level);
      CHECK_FALSE(guest.confined());
      guest.irqchip = false;
      CHECK(guest.confined());
      guest.irqchip = true;
      guest.map_high(leaf, kKernels, level);
      CHECK(guest.confined());
      guest.map_high(leaf, kUser, level);
      CHECK(guest.confined());
    }
    for (uint64_t neighbour : {controller - kPageSize, controller + kPageSize}) {
      INFO(hex(neighbour));
      Guest guest;
      guest.map_high(neighbour, kOpen);
      CHECK(guest.confined());
    }
    Guest guest;
    guest.map_high(controller, kOpen, 1, kKernels);
    CHECK(guest.confined());
    // The same tables by another way, which is open all along.
    guest.set(kTop, 1, kPointers | kOpen);
    guest.set(kPointers, 2, kMoreTables | kOpen);
    CHECK_FALSE(guest.confined());
  }
}

TEST_CASE("a large leaf beside a controller is not one with it") {
  Guest guest;
  guest.map_high(kIoapicAt - (2 << 20), kOpen, 2);
  guest.set(kPointers, 2, uint64_t{2} << 30 | kOpen | kLarge);
  CHECK(guest.confined());
}

TEST_CASE("a gate in the IDT leads out of ring 3") {
  // In the first byte and the last.
  for (uint64_t at : {uint64_t{0}, kIdtLimit}) {
    INFO(at);
    Guest guest;
    guest.memory.write(kIdt + at, std::vector<uint8_t>{1});
    CHECK_FALSE(guest.confined());
    // What is beyond the limit is no gate.
    guest.sregs.idt.limit = static_cast<uint16_t>(kIdtLimit - 1);
    CHECK(guest.confined() == (at == kIdtLimit));
  }
}

TEST_CASE("a descriptor that ring 3 may call leads out of it") {
  for (uint64_t type : {kCallGate, kTaskGate, kTss}) {
    for (uint64_t index : {uint64_t{1}, uint64_t{6}}) {
      INFO("type " << type << " at " << index);
      Guest guest;
      guest.set(kGdt, index, descriptor(type, 3));
      CHECK_FALSE(guest.confined());
      guest.set(kGdt, index, descriptor(type, 3, 0));
      CHECK(guest.confined());
      guest.set(kGdt, index, descriptor(type, 0));
      CHECK(guest.confined());
    }
  }
  Guest guest;
  guest.set(kGdt, 7, descriptor(kCallGate, 3));
  CHECK(guest.confined());
  guest.sregs.gdt.limit += 8;
  CHECK_FALSE(guest.confined());
}

TEST_CASE("descriptor tables lie on several pages, and in large ones") {
  Guest guest;
  guest.sregs.idt.base = 2 << 20;
  guest.set(kDirectory, 1, uint64_t{2} << 20 | kKernels | kLarge);
  CHECK(guest.pages() == Pages{kTop, kPointers, kDirectory, kLeaves, kGdt, 2 << 20});
  guest.sregs.idt.base += kPageSize + 8;
  CHECK(guest.pages() == Pages{kTop, kPointers, kDirectory, kLeaves, kGdt, (2 << 20) + kPageSize,
                               (2 << 20) + 2 * kPageSize});
  guest.memory.write((2 << 20) + 2 * kPageSize + 7, std::vector<uint8_t>{1});
  CHECK_FALSE(guest.confined());
}

TEST_CASE("descriptor tables may lie in a leaf of 1 GiB") {
  Guest guest;
  guest.set(kPointers, 1, kKernels | kLarge);
  guest.sregs.idt.base = (1 << 30) + kIdt;
  CHECK(guest.pages() == Pages{kTop, kPointers, kDirectory, kLeaves, kIdt, kGdt});
}

TEST_CASE("descriptor tables that cannot be read prove nothing") {
  require_each_frees({
      {"the IDT is not mapped", [](Guest& guest) { guest.set(kLeaves, kIdt / kPageSize, 0); }},
      {"the GDT is not mapped", [](Guest& guest) { guest.set(kLeaves, kGdt / kPageSize, 0); }},
      {"the IDT is no RAM",
       [](Guest& guest) { guest.set(kLeaves, kIdt / kPageSize, kMemory | kKernels); }},
      {"a page table is no RAM", [](Guest& guest) { guest.set(kTop, 1, kMemory | kOpen); }},
      {"the top is no RAM", [](Guest& guest) { guest.sregs.cr3 = kMemory; }},
  });
}

TEST_CASE("page tables in circles are walked once") {
  Guest guest;
  guest.set(kTop, 511, kTop | kOpen);
  guest.set(kDirectory, 511, kDirectory | kKernels);
  CHECK(guest.confined());
}

TEST_CASE("a guest with more page tables than a small one has is not looked through") {
  Guest guest;
  // There are four, and each of these is one more.
  constexpr uint64_t kMost = 160;
  for (uint64_t more = 1; more <= kMost - 4; more++) {
    guest.set(kDirectory, more, (kMoreTables + more * kPageSize) | kOpen);
  }
  auto pages = guest.pages();
  REQUIRE(pages);
  CHECK(pages->size() == kMost + 2);
  guest.set(kDirectory, kMost - 3, (kMoreTables + kMost * kPageSize) | kOpen);
  CHECK_FALSE(guest.confined());
}

TEST_CASE("sections that are missing or cut short prove nothing") {
  for (VcpuSection section :
       {VcpuSection::Sregs2, VcpuSection::Regs, VcpuSection::VcpuEvents, VcpuSection::Lapic}) {
    INFO(kVcpuSectionNames[static_cast<size_t>(section)]);
    Guest guest;
    VcpuState vcpu = guest.state();
    vcpu[section].pop_back();
    CHECK_FALSE(pages_that_confine(vcpu, true, guest.memory));
    vcpu[section].clear();
    CHECK_FALSE(pages_that_confine(vcpu, true, guest.memory));
  }
}

namespace {

struct Kept {
  Guest guest;
  MachineState state;

  Kept() {
    state.vm.irqchip.emplace();
    state.vm.irqchip->ioapic.chip.ioapic.base_address = kIoapicAt;
    state.vcpus = {guest.state(), guest.state()};
  }
  auto shared() const { return std::make_shared<const MachineState>(state); }

  bool held() const {
    auto shared_state = shared();
    Confinement confinement;
    confinement.begin(shared_state);
    return confinement.held(shared_state, {}, guest.memory);
  }
};

}  // namespace

TEST_CASE("a machine is held to the state that it began in, until that is breached") {
  Kept kept;
  auto state = kept.shared(), other = kept.shared();
  const GuestMemory& memory = kept.guest.memory;
  Confinement confinement;
  CHECK_FALSE(confinement.held(nullptr, {}, memory));
  CHECK_FALSE(confinement.held(state, {}, memory));
  confinement.begin(state);
  CHECK(confinement.knows(*state));
  CHECK_FALSE(confinement.knows(*other));
  CHECK(confinement.held(state, {}, memory));
  CHECK(confinement.held(state, {}, memory));
  CHECK_FALSE(confinement.held(other, {}, memory));
  confinement.breach();
  CHECK_FALSE(confinement.held(state, {}, memory));
  confinement.begin(state);
  CHECK(confinement.held(state, {}, memory));
  confinement.begin(nullptr);
  CHECK_FALSE(confinement.held(nullptr, {}, memory));
}

TEST_CASE("each state that a machine begins in is looked at") {
  Kept kept;
  auto good = kept.shared();
  kept.guest.sregs.efer |= 1;
  kept.state.vcpus[1] = kept.guest.state();
  auto bad = kept.shared();
  Confinement confinement;
  confinement.begin(good);
  CHECK(confinement.held(good, {}, kept.guest.memory));
  confinement.begin(bad);
  CHECK_FALSE(confinement.held(bad, {}, kept.guest.memory));
  confinement.begin(good);
  CHECK(confinement.held(good, {}, kept.guest.memory));
}

TEST_CASE("pages that confine must not have been written") {
  Kept kept;
  auto state = kept.shared();
  Confinement confinement;
  confinement.begin(state);
  auto held = [&](const std::vector<GpaRange>& written) {
    return confinement.held(state, written, kept.guest.memory);
  };
  CHECK(held({}));
  CHECK(held({{kOwn, kPageSize}}));
  CHECK(held({{0, kTop}, {kGdt + kPageSize, kMemory - kGdt - kPageSize}}));
  for (uint64_t page : {kTop, kPointers, kDirectory, kLeaves, kIdt, kGdt}) {
    INFO(hex(page));
    CHECK_FALSE(held({{page, kPageSize}}));
    CHECK_FALSE(held({{0, kPageSize}, {page, kPageSize}, {kOwn, kPageSize}}));
  }
  CHECK_FALSE(held({{0, kMemory}}));
}

TEST_CASE("every vCPU must be confined") {
  for (size_t vcpu : {0, 1}) {
    Kept kept;
    CHECK(kept.held());
    kept.guest.sregs.efer |= 1;
    kept.state.vcpus[vcpu] = kept.guest.state();
    CHECK_FALSE(kept.held());
  }
}

TEST_CASE("an IOAPIC that was moved, or sends SMI or INIT, leads out of ring 3") {
  Kept kept;
  auto& ioapic = kept.state.vm.irqchip->ioapic.chip.ioapic;
  for (size_t pin : {size_t{0}, size_t{KVM_IOAPIC_NUM_PINS - 1}}) {
    for (uint64_t mode = 0; mode < 8; mode++) {
      INFO("pin " << pin << ", delivery mode " << mode);
      ioapic.redirtbl[pin].bits = mode << 8;
      CHECK(kept.held() == (mode == 0 || mode == 1 || mode == 4 || mode == 7));
    }
    ioapic.redirtbl[pin].bits = 0;
  }
  ioapic.base_address = kIoapicAt + kPageSize;
  CHECK_FALSE(kept.held());
  kept.state.vm.irqchip.reset();
  CHECK(kept.held());
}

}  // namespace kvmsnap
