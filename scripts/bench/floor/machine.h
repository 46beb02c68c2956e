// The least code that makes a KVM machine: what the ioctls themselves cost.
#pragma once

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

enum { kPage = 4096, kRingEntries = 65536 };
enum dirty_mode { kNone, kBitmap, kManual, kRing };
// kLeast: slot, vCPU, CPUID, sregs, regs. kFull: also irqchip and PIT, and all saveable state.
enum machine_kind { kLeast, kFull };

// Guest memory that machines map copy-on-write: a memfd or a file.
struct template {
  int fd;
  size_t size;
};

struct machine {
  int vm, vcpu;
  enum machine_kind kind;
  size_t memory_size;
  struct kvm_run* run;
  uint8_t* memory;
  struct kvm_dirty_gfn* ring;
  uint32_t ring_head;
};

// What a machine's saved state consists of, besides memory.
struct full_state {
  struct kvm_regs regs;
  struct kvm_sregs sregs;
  struct kvm_xsave xsave;
  struct kvm_xcrs xcrs;
  struct kvm_debugregs debugregs;
  struct {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[256];
  } msrs;
  struct kvm_lapic_state lapic;
  struct kvm_vcpu_events events;
  struct kvm_mp_state mp_state;
  struct kvm_irqchip irqchips[3];
  struct kvm_pit_state2 pit;
  struct kvm_clock_data clock;
};

// Prints what failed, with errno, and ends the program.
_Noreturn void die(const char* what);

void open_kvm(void);

// Memory beyond 3 GiB is a second slot, which begins at 4 GiB.
#define kHoleStart (3ull << 30)
#define kHoleEnd (4ull << 30)
enum { kSlots = 2 };
struct slot {
  size_t offset, size;  // in the machine's memory; a size of 0: there is no such slot
  uint64_t gpa;
};
struct slot slot_of(size_t memory_size, int slot);

// Writes code and page tables for ring 3 into guest memory: an address is an offset in memory,
// whichever slot it is in.
void write_guest(uint8_t* memory, size_t size);

// A memfd of `size` bytes with the guest in it, filled with noise if `filled`. `memory`: mapped
// here.
struct template make_template(size_t size, int filled, uint8_t** memory);

void free_template(struct template t, uint8_t* memory);

// Maps the template MAP_PRIVATE: over `at`, or anywhere.
void* map_private(struct template t, void* at);

struct machine create_machine(struct template t, enum dirty_mode mode, enum machine_kind kind);
void destroy_machine(struct machine* x);

// Makes the machine start from the beginning, with `pages` to touch in each pass. A full machine is
// given all of `reference` too, the state of a machine that never ran.
void set_state(struct machine* x, uint64_t pages);
void get_full_state(struct machine* x, struct full_state* state);

// KVM_RUN, which must exit at this port.
void run_to(struct machine* x, uint16_t port);
