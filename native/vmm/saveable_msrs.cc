#include "vmm/saveable_msrs.h"

#include <algorithm>
#include <array>
#include <optional>

#include "kvm/error.h"
#include "kvm/kvm.h"
#include "memory/region_spec.h"

namespace kvmsnap {

namespace {

// Of KVM on PVM, in no document: a guest can write its low bits. Bit 10 shows in what the host
// reads, and KVM refuses it when it is set.
constexpr uint32_t kMsrPvm = 0x4B564D10;
constexpr uint64_t kPvmReadOnly = uint64_t{1} << 10;

struct MsrRange {
  uint32_t first;
  uint32_t count;
};

// What KVM keeps for a guest beyond what KVM_GET_MSR_INDEX_LIST names on one kernel or another
// (arch/x86/kvm/x86.c, kvm_set_msr_common; svm/svm.c, vmx/vmx.c).
constexpr std::array kNamed = std::to_array<MsrRange>({
    {0x48, 1},        // SPEC_CTRL
    {0x8C, 4},        // SGX launch control
    {0xE1, 1},        // UMWAIT_CONTROL
    {0x122, 1},       // TSX_CTRL
    {0x17A, 2},       // MCG_STATUS, MCG_CTL
    {0x1C4, 2},       // XFD, XFD_ERR
    {0x250, 1},       // fixed MTRRs (Intel SDM volume 3, 12.11.2.2): 64 KiB,
    {0x258, 2},       //   16 KiB,
    {0x268, 8},       //   4 KiB
    {0x277, 1},       // PAT
    {0x2FF, 1},       // MTRR_DEF_TYPE
    {kMsrXss, 1},     // XSS
    {0x4B564D00, 9},  // KVM's own (Documentation/virt/kvm/x86/msr.rst)
    {kMsrPvm, 1},     // PVM's own
    {0xC0000103, 1},  // TSC_AUX
    {0xC0010015, 1},  // HWCR
    {kMsrVmCr, 1},    // VM_CR
    {0xC0010117, 1},  // VM_HSAVE_PA
    {0xC001011F, 1},  // VIRT_SPEC_CTRL
    {0xC0010140, 2},  // OSVW_ID_LENGTH, OSVW_STATUS
    {0xC0011029, 1},  // DE_CFG
});

// Hyper-V (arch/x86/kvm/hyperv.c). A KVM without it has none of them.
constexpr std::array kHyperV = std::to_array<MsrRange>({
    {kMsrHvGuestOsId, 2},  // GUEST_OS_ID, HYPERCALL
    {0x40000021, 1},       // REFERENCE_TSC
    {0x40000073, 1},       // VP_ASSIST_PAGE
    {0x40000080, 1},       // SCONTROL
    {0x40000082, 2},       // SIEFP, SIMP
    {0x40000090, 16},      // SINT0 to 15
    {0x400000B0, 8},       // STIMER0 to 3, CONFIG and COUNT
    {0x40000100, 6},       // CRASH_P0 to 4, CRASH_CTL
    {0x40000106, 3},       // reenlightenment and TSC emulation
    {0x40000118, 1},       // TSC_INVARIANT_CONTROL
});

constexpr uint32_t kMtrrCap = 0xFE;
constexpr uint32_t kMtrrPhysBase0 = 0x200;
constexpr uint32_t kMc0Ctl = 0x400;
constexpr uint32_t kMc0Ctl2 = 0x280;
constexpr uint32_t kMcgExtCtl = 0x4D0;
// Intel SDM volume 3, 16.3.1.1, of MCG_CAP.
constexpr uint64_t kMcgCmci = uint64_t{1} << 10;
constexpr uint64_t kMcgLocal = uint64_t{1} << 27;

std::optional<uint64_t> value_of(const VcpuFd& fd, uint32_t index) {
  std::vector<kvm_msr_entry> entries = {{.index = index, .reserved = 0, .data = 0}};
  if (fd.msrs(entries) == 0) return std::nullopt;
  return entries[0].data;
}

// KVM_GET_MSRS, less the bits that cannot be set.
size_t read(const VcpuFd& fd, std::vector<kvm_msr_entry>& entries) {
  size_t count = fd.msrs(entries);
  for (size_t i = 0; i < count; i++) {
    if (entries[i].index == kMsrPvm) entries[i].data &= ~kPvmReadOnly;
  }
  return count;
}

std::vector<kvm_msr_entry> blank(const std::vector<uint32_t>& indices) {
  std::vector<kvm_msr_entry> entries;
  entries.reserve(indices.size());
  for (uint32_t index : indices) entries.push_back({.index = index, .reserved = 0, .data = 0});
  return entries;
}

std::vector<uint32_t> candidates(const VcpuFd& fd) {
  std::vector<uint32_t> indices = Kvm::instance().msr_index_list();
  // So that each is looked for once.
  std::vector<uint32_t> listed = indices;
  std::sort(listed.begin(), listed.end());
  auto add = [&](MsrRange range) {
    for (uint32_t index = range.first; index < range.first + range.count; index++) {
      if (!std::binary_search(listed.begin(), listed.end(), index)) indices.push_back(index);
    }
  };
  for (const MsrRange& range : kNamed) add(range);
  if (value_of(fd, kMsrHvGuestOsId)) {
    for (const MsrRange& range : kHyperV) add(range);
  }
  // Base and mask of as many variable ranges as there are.
  if (auto cap = value_of(fd, kMtrrCap)) {
    add({kMtrrPhysBase0, 2 * static_cast<uint32_t>(*cap & 0xFF)});
  }
  if (auto cap = value_of(fd, kMsrMcgCap)) {
    // CTL, STATUS, ADDR and MISC of each bank.
    uint32_t banks = static_cast<uint32_t>(*cap & 0xFF);
    add({kMc0Ctl, 4 * banks});
    if ((*cap & kMcgCmci) != 0) add({kMc0Ctl2, banks});
    if ((*cap & kMcgLocal) != 0) add({kMcgExtCtl, 1});
  }
  return indices;
}

// The entries that `access`, which stops at the first that it cannot do, can do.
template <typename Access>
std::vector<kvm_msr_entry> accessible(const std::vector<kvm_msr_entry>& entries,
                                      const Access& access) {
  std::vector<kvm_msr_entry> result;
  for (size_t first = 0; first < entries.size();) {
    std::vector<kvm_msr_entry> rest(entries.begin() + static_cast<ptrdiff_t>(first), entries.end());
    size_t count = access(rest);
    result.insert(result.end(), rest.begin(), rest.begin() + static_cast<ptrdiff_t>(count));
    first += count + 1;
  }
  return result;
}

int rank(uint32_t index) {
  switch (index) {
    // The TSC first: a deadline is a value of it.
    case kMsrTsc:
      return 0;
    // While it is 0, KVM ignores what HV_HYPERCALL is set to.
    case kMsrHvGuestOsId:
      return 1;
    // TSC_DEADLINE last: set before the TSC, it would fire at once or never.
    case kMsrTscDeadline:
      return 3;
    default:
      return 2;
  }
}

bool before(const kvm_msr_entry& a, const kvm_msr_entry& b) {
  return rank(a.index) < rank(b.index);
}

}  // namespace

std::vector<uint32_t> find_saveable_msrs(const VcpuFd& fd) {
  std::vector<kvm_msr_entry> entries = accessible(
      blank(candidates(fd)), [&](std::vector<kvm_msr_entry>& some) { return read(fd, some); });
  // A TSC that is set goes another way than one that was never set.
  auto tsc = std::stable_partition(entries.begin(), entries.end(), [](const kvm_msr_entry& entry) {
    return entry.index != kMsrTsc;
  });
  std::vector<kvm_msr_entry> settable = accessible(
      {entries.begin(), tsc}, [&](std::vector<kvm_msr_entry>& some) { return fd.set_msrs(some); });
  settable.insert(settable.end(), tsc, entries.end());
  std::stable_sort(settable.begin(), settable.end(), before);
  std::vector<uint32_t> indices;
  indices.reserve(settable.size());
  for (const kvm_msr_entry& entry : settable) indices.push_back(entry.index);
  return indices;
}

std::vector<kvm_msr_entry> read_saveable_msrs(const VcpuFd& fd,
                                              const std::vector<uint32_t>& indices) {
  std::vector<kvm_msr_entry> entries = blank(indices);
  size_t count = read(fd, entries);
  if (count == entries.size()) return entries;
  throw Error("ERR_MSR", "KVM cannot read MSR " + hex(entries[count].index));
}

void arrange_msrs(std::vector<kvm_msr_entry>& entries) {
  if (!std::is_sorted(entries.begin(), entries.end(), before)) {
    std::stable_sort(entries.begin(), entries.end(), before);
  }
  auto with_index = [&](uint32_t index) {
    return std::find_if(entries.begin(), entries.end(),
                        [&](const kvm_msr_entry& entry) { return entry.index == index; });
  };
  auto owner = with_index(kMsrHvGuestOsId);
  auto hypercall = with_index(kMsrHvHypercall);
  if (owner == entries.end() || hypercall == entries.end() || owner->data != 0) return;
  // Somebody owns the page while it is set; then nobody does.
  owner->data = 1;
  entries.insert(hypercall + 1, {.index = kMsrHvGuestOsId, .reserved = 0, .data = 0});
}

}  // namespace kvmsnap
