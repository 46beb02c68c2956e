#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"

extern const uint8_t guest_code[], guest_code_end[];

static int kvm_fd, run_size;
static struct {
  struct kvm_cpuid2 head;
  struct kvm_cpuid_entry2 entries[256];
} cpuid;
static struct {
  struct kvm_msr_list head;
  uint32_t indices[256];
} msr_list;
static struct full_state reference;
static int has_reference;

void die(const char* what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

// An ioctl that has to succeed; its name is the message.
#define DO(fd, request, argument) \
  if (ioctl(fd, request, argument) < 0) die(#request)

void open_kvm(void) {
  if ((kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC)) < 0) die("/dev/kvm");
  if ((run_size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0)) < 0) die("KVM_GET_VCPU_MMAP_SIZE");
  cpuid.head.nent = 256;
  DO(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid);
  msr_list.head.nmsrs = 256;
  DO(kvm_fd, KVM_GET_MSR_INDEX_LIST, &msr_list);
}

struct slot slot_of(size_t memory_size, int slot) {
  const size_t low = memory_size < kHoleStart ? memory_size : kHoleStart;
  if (slot == 0) return (struct slot){.size = low};
  return (struct slot){.offset = kHoleStart, .size = memory_size - low, .gpa = kHoleEnd};
}

void write_guest(uint8_t* memory, size_t size) {
  const uint64_t gib = (size + (1ull << 30) - 1) >> 30;
  memcpy(memory + 0x1000, guest_code, guest_code_end - guest_code);
  uint64_t* pml4 = (void*)(memory + 0x10000);
  uint64_t* pdpt = (void*)(memory + 0x11000);
  uint64_t* pd = (void*)(memory + 0x12000);
  pml4[0] = 0x11000 | 7;
  for (uint64_t i = 0; i < gib; i++) pdpt[i] = (0x12000 + i * kPage) | 7;
  for (uint64_t i = 0; i < gib * 512; i++) {
    const uint64_t offset = i << 21;
    pd[i] = (offset < kHoleStart ? offset : offset - kHoleStart + kHoleEnd) | 0x87;
  }
}

struct template make_template(size_t size, int filled, uint8_t** memory) {
  struct template t = {.fd = memfd_create("template", MFD_CLOEXEC), .size = size};
  if (t.fd < 0 || ftruncate(t.fd, size)) die("memfd");
  *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, t.fd, 0);
  if (*memory == MAP_FAILED) die("mmap template");
  for (size_t i = GUEST_PAGES; filled && i < size; i += 8)
    *(uint64_t*)(*memory + i) = i * 0x9e3779b97f4a7c15ull;
  write_guest(*memory, size);
  return t;
}

void free_template(struct template t, uint8_t* memory) {
  munmap(memory, t.size);
  close(t.fd);
}

void* map_private(struct template t, void* at) {
  void* p = mmap(at, t.size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_NORESERVE | (at ? MAP_FIXED : 0), t.fd, 0);
  if (p == MAP_FAILED) die("mmap");
  return p;
}

static void enable(int vm, uint32_t capability, uint64_t argument) {
  struct kvm_enable_cap cap = {.cap = capability, .args = {argument}};
  DO(vm, KVM_ENABLE_CAP, &cap);
}

struct machine create_machine(struct template t, enum dirty_mode mode, enum machine_kind kind) {
  struct machine x = {.kind = kind, .memory_size = t.size};
  if ((x.vm = ioctl(kvm_fd, KVM_CREATE_VM, 0)) < 0) die("KVM_CREATE_VM");
  if (mode == kRing)
    enable(x.vm, KVM_CAP_DIRTY_LOG_RING, kRingEntries * sizeof(struct kvm_dirty_gfn));
  if (mode == kManual) enable(x.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1);
  x.memory = map_private(t, NULL);
  for (int i = 0; i < kSlots; i++) {
    const struct slot slot = slot_of(t.size, i);
    struct kvm_userspace_memory_region region = {
        .slot = i,
        .guest_phys_addr = slot.gpa,
        .memory_size = slot.size,
        .userspace_addr = (uintptr_t)x.memory + slot.offset,
        .flags = mode == kNone ? 0 : KVM_MEM_LOG_DIRTY_PAGES,
    };
    if (slot.size) DO(x.vm, KVM_SET_USER_MEMORY_REGION, &region);
  }
  // After the slot: KVM_SET_USER_MEMORY_REGION on a VM that already has an irqchip waits some
  // 10 ms for an SRCU grace period, 0.1 ms on one that has not.
  if (kind == kFull) {
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    DO(x.vm, KVM_CREATE_IRQCHIP, 0);
    DO(x.vm, KVM_CREATE_PIT2, &pit);
  }
  if ((x.vcpu = ioctl(x.vm, KVM_CREATE_VCPU, 0)) < 0) die("KVM_CREATE_VCPU");
  x.run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, x.vcpu, 0);
  if (x.run == MAP_FAILED) die("kvm_run");
  if (mode == kRing) {
    x.ring = mmap(NULL, kRingEntries * sizeof *x.ring, PROT_READ | PROT_WRITE, MAP_SHARED, x.vcpu,
                  KVM_DIRTY_LOG_PAGE_OFFSET * (long)kPage);
    if (x.ring == MAP_FAILED) die("ring mmap");
  }
  DO(x.vcpu, KVM_SET_CPUID2, &cpuid);
  if (kind == kFull && !has_reference) {
    get_full_state(&x, &reference);
    has_reference = 1;
  }
  return x;
}

void destroy_machine(struct machine* x) {
  munmap(x->run, run_size);
  if (x->ring) munmap(x->ring, kRingEntries * sizeof *x->ring);
  close(x->vcpu);
  close(x->vm);
  munmap(x->memory, x->memory_size);
}

void get_full_state(struct machine* x, struct full_state* s) {
  const uint32_t msrs = msr_list.head.nmsrs;
  s->msrs.head.nmsrs = msrs;
  for (uint32_t i = 0; i < msrs; i++) s->msrs.entries[i].index = msr_list.indices[i];
  DO(x->vcpu, KVM_GET_REGS, &s->regs);
  DO(x->vcpu, KVM_GET_SREGS, &s->sregs);
  if (ioctl(x->vcpu, KVM_GET_MSRS, &s->msrs) != (int)msrs) die("KVM_GET_MSRS");
  DO(x->vcpu, KVM_GET_XSAVE, &s->xsave);
  DO(x->vcpu, KVM_GET_XCRS, &s->xcrs);
  DO(x->vcpu, KVM_GET_DEBUGREGS, &s->debugregs);
  DO(x->vcpu, KVM_GET_LAPIC, &s->lapic);
  DO(x->vcpu, KVM_GET_VCPU_EVENTS, &s->events);
  DO(x->vcpu, KVM_GET_MP_STATE, &s->mp_state);
  for (uint32_t i = 0; i < 3; i++) {
    s->irqchips[i].chip_id = i;
    DO(x->vm, KVM_GET_IRQCHIP, &s->irqchips[i]);
  }
  DO(x->vm, KVM_GET_PIT2, &s->pit);
  DO(x->vm, KVM_GET_CLOCK, &s->clock);
  s->clock.flags = 0;
}

static void set_reference(struct machine* x) {
  struct full_state* s = &reference;
  for (int i = 0; i < 3; i++) DO(x->vm, KVM_SET_IRQCHIP, &s->irqchips[i]);
  DO(x->vm, KVM_SET_PIT2, &s->pit);
  DO(x->vm, KVM_SET_CLOCK, &s->clock);
  DO(x->vcpu, KVM_SET_XCRS, &s->xcrs);
  DO(x->vcpu, KVM_SET_XSAVE, &s->xsave);
  DO(x->vcpu, KVM_SET_DEBUGREGS, &s->debugregs);
  DO(x->vcpu, KVM_SET_LAPIC, &s->lapic);
  const int msrs = s->msrs.head.nmsrs;
  if (ioctl(x->vcpu, KVM_SET_MSRS, &s->msrs) != msrs) die("KVM_SET_MSRS");
  DO(x->vcpu, KVM_SET_VCPU_EVENTS, &s->events);
  DO(x->vcpu, KVM_SET_MP_STATE, &s->mp_state);
}

void set_state(struct machine* x, uint64_t pages) {
  struct kvm_sregs s;
  DO(x->vcpu, KVM_GET_SREGS, &s);
  const struct kvm_segment code = {
      .limit = ~0u, .selector = 0x23, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1};
  const struct kvm_segment data = {
      .limit = ~0u, .selector = 0x1b, .type = 3, .present = 1, .dpl = 3, .db = 1, .s = 1, .g = 1};
  s.cs = code;
  s.ds = s.es = s.fs = s.gs = s.ss = data;
  s.cr3 = 0x10000, s.cr4 = 0x620, s.cr0 = 0x80050033, s.efer = 0x501;
  DO(x->vcpu, KVM_SET_SREGS, &s);
  struct kvm_regs r = {.rip = 0x1000, .rflags = 0x3002, .rsp = 0x8000, .r15 = pages};
  DO(x->vcpu, KVM_SET_REGS, &r);
  if (x->kind == kFull) set_reference(x);
}

void run_to(struct machine* x, uint16_t port) {
  DO(x->vcpu, KVM_RUN, 0);
  if (x->run->exit_reason != KVM_EXIT_IO || x->run->io.port != port) {
    fprintf(stderr, "floor: exit %u where port 0x%x was to be written\n", x->run->exit_reason,
            port);
    exit(1);
  }
}
