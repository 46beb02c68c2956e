// A machine: VM, vCPUs, memory and devices put together, and its life.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kvm/kvm.h"
#include "memory/guest_memory.h"
#include "memory/pager.h"
#include "vmm/clock_policy.h"
#include "vmm/confinement.h"
#include "vmm/crew.h"
#include "vmm/device_set.h"
#include "vmm/dirty_ring.h"
#include "vmm/dirty_tracking.h"
#include "vmm/exit.h"
#include "vmm/irq_lines.h"
#include "vmm/machine_state.h"
#include "vmm/memory_slots.h"
#include "vmm/output_buffer.h"
#include "vmm/translations.h"
#include "vmm/vcpu.h"

namespace kvmsnap {

enum class Status : uint8_t { Created, Running, Paused, Stopped, Poisoned, Closed };
const char* status_name(Status status);

struct MachineConfig {
  std::vector<RegionSpec> regions;
  bool irqchip = false;
  /// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: `dirty_log` reads only, `clear_dirty_log` re-arms.
  bool manual_dirty_log = false;
  /// Entries of each vCPU's dirty ring; 0: none, and slots have logs instead.
  uint32_t dirty_ring = 0;
  DeviceChoice devices;
  /// `kvm_cpuid_entry2[]` for each vCPU; its length is their number.
  std::vector<std::vector<uint8_t>> cpuid;
  /// Memory to start with, copy-on-write; else zeros.
  std::shared_ptr<const Image> image;
  /// State to start with; else what KVM gives a new vCPU.
  std::shared_ptr<const MachineState> state;
  /// Of that state.
  ClockPolicy clock = ClockPolicy::Keep;
};

/// Why a machine stopped by itself or was poisoned.
struct Stop {
  /// As in NativeStop (lib/native/binding.ts).
  std::string reason;
  std::optional<uint32_t> code;
  std::optional<Error> error;
  /// How often the machine had been reset before.
  uint32_t life = 0;
};

/// Which of a machine's output streams.
enum class Stream : uint8_t { Serial, Debug };

/// What a machine tells its owner, from any of its threads. Must not throw, must not wait.
class MachineEvents {
 public:
  virtual ~MachineEvents() = default;
  virtual void stopped(Stop stop) = 0;
  /// There is something to `take_output`.
  virtual void output(Stream stream) = 0;
  /// A vCPU touched a claimed range and waits for `complete_exit`.
  virtual void claimed_exit(unsigned vcpu, uint32_t question, ClaimId claim, OwnedExit exit) = 0;
  /// No page comes on demand any more: all are there, or none will be.
  virtual void paging_ended() {}
};

/// Memory and state of one instant.
struct Frozen {
  std::shared_ptr<const MachineState> state;
  FrozenMemory memory;
  /// How long the guest stood still: 0 if it was not running.
  std::chrono::nanoseconds pause{0};
};

/// Methods are called by the owner's thread, and none of them waits for a vCPU. What needs the
/// machine to stand still is done in a job (`submit`), by way of the methods under "In a job".
class Machine final : public std::enable_shared_from_this<Machine>,
                      private CrewWork,
                      private PagerEvents,
                      private StopSink {
 public:
  /// Built on the caller's thread, which blocks signals meanwhile. With `paging` memory comes on
  /// demand; then a machine with a state is `created`, and gets it by `enter_state`.
  static std::shared_ptr<Machine> create(MachineConfig config,
                                         std::unique_ptr<MachineEvents> events,
                                         std::optional<PagingOptions> paging = std::nullopt);
  ~Machine() override = default;

  Status status() const;
  unsigned vcpu_count() const { return static_cast<unsigned>(config_.cpuid.size()); }
  bool irqchip() const { return config_.irqchip; }
  /// Whether a reset takes well under a millisecond. To find what was written takes up to 8 ms a
  /// GiB.
  bool resets_fast() const;

  // Life. Wrong states throw ERR_STATE, ERR_POISONED or ERR_CLOSED.
  void resume();
  /// `done` is called once every vCPU stands at an instruction boundary.
  void pause(Crew::Job done);
  /// `reason`: what `stopped` tells, of a machine that was not stopped before.
  void kill(Crew::Job done, const char* reason = "killed");
  /// Begins the end; idempotent. `closed` is called when everything is freed, at once if it was.
  void close(const std::function<void()>& closed);
  /// A job for which the machine may be running (it stands still meanwhile).
  void submit(Crew::Job job);
  /// The same for a job that freezes memory. What can be done for that while the guest runs is done
  /// before; then `asked` is called, and the guest has to stand.
  void submit_freeze(Crew::Job job, std::function<void()> asked);
  /// A job that must not find the machine running. One that only looks may also look at a poisoned
  /// machine, to find out what became of it; a reset also finds a running one, and heals. What
  /// takes away what a machine had (tracking) is like a reset.
  enum class Access : uint8_t { Inspect, Change, Reset };
  void submit_standing(Access access, Crew::Job job);
  /// The same for a job that resets the machine to that instant. Pages that are still to come on
  /// demand will not, so that no vCPU waits for one. Throws what `reset` would for the instant.
  void submit_reset(const MachineConfig& instant, ClockPolicy clock, Crew::Job job);
  /// Does short work of that kind at once, on the caller's thread, if the machine stands and
  /// nothing else goes on. False: submit it. What `work` throws comes through.
  bool try_standing(Access access, const std::function<void()>& work);
  /// Runs one vCPU until its next exit. `done` gets it, or an error.
  using SoloDone = std::function<void(std::variant<OwnedExit, Error>)>;
  void run_solo(unsigned vcpu, bool dispatch, bool single_step, SoloDone done);
  void answer_solo(unsigned vcpu, std::vector<uint8_t> data);

  // At any time until closed.
  GuestMemory& memory() {
    require_open();
    return memory_;
  }
  /// Copies of memory, as GuestMemory does them, that never wait for the caller's own thread:
  /// throws ERR_STATE for pages that come on demand and are not there, ERR_PAGE_SOURCE for those
  /// that will not come.
  void read_memory(uint64_t gpa, std::span<uint8_t> bytes);
  void write_memory(uint64_t gpa, std::span<const uint8_t> bytes);
  /// Null when memory does not come on demand. It outlives the machine, of no use then.
  std::shared_ptr<Pager> pager() const;
  std::vector<uint8_t> take_output(Stream stream);
  void set_output_flow(Stream stream, bool flowing);
  size_t serial_input(std::span<const uint8_t> bytes);
  ClaimId claim_ports(uint16_t base, uint32_t length);
  ClaimId claim_mmio(uint64_t gpa, uint64_t length);
  void release_claim(ClaimId claim);
  /// For a write `data` is empty. An answer that comes too late, after a kill or a reset, is
  /// dropped.
  void complete_exit(unsigned vcpu, uint32_t question,
                     std::variant<std::vector<uint8_t>, Error> data);
  void set_irq_line(uint32_t gsi, bool level);
  /// How often the guest has used a device, modulo 2^32.
  uint32_t device_accesses() const { return device_accesses_.load(std::memory_order_relaxed); }

  // In a job.
  /// The state of a machine that was made with paging: KVM may touch memory for it, which takes
  /// whoever answers for the source.
  void enter_state();
  std::vector<uint8_t> get_section(unsigned vcpu, VcpuSection section);
  void set_section(unsigned vcpu, VcpuSection section, std::span<const uint8_t> bytes);
  /// `struct kvm_irqchip`, whose chip_id says which. ERR_STATE without an in-kernel irqchip.
  void set_irqchip(std::span<const uint8_t> bytes);
  /// Ends a running machine as `halt` if no vCPU of it will ever execute an instruction again. KVM
  /// with an in-kernel irqchip gives no exit for that: it waits for an NMI that nobody sends.
  void end_if_halted();
  std::vector<uint8_t> get_msrs(unsigned vcpu, std::span<const uint32_t> indices);
  MachineState save_state();
  /// All of it, or nothing: when KVM refuses a part, the machine gets back the state it had. If
  /// even that fails it is poisoned. A stopped machine runs on if the state can, and the other way
  /// round. Returns the number of its life, which begins with such a change.
  uint32_t load_state(const MachineState& state);
  /// `asked` is when the guest was first kicked. `pause_after`: a running machine becomes paused.
  Frozen freeze(std::chrono::steady_clock::time_point asked, bool pause_after);
  /// The machine, whatever became of it, is as a machine made of the same would be: at the instant
  /// of `instant.state`, and paused, or stopped if that was. What an exit waits for is given up.
  /// Throws ERR_STATE, and has done nothing, for another kind of machine; when KVM refuses a part
  /// the machine is poisoned. Returns how often that was done, which tells stops before it from
  /// stops after it.
  uint32_t reset(const MachineConfig& instant, const std::shared_ptr<const Image>& image,
                 ClockPolicy clock);
  /// The same for a machine that goes to another owner: nothing is left of what it was, in memory
  /// or on its way out, and nobody answers for ranges that were claimed.
  uint32_t recycle(const MachineConfig& instant, const std::shared_ptr<const Image>& image);
  /// A machine that was made or recycled for that instant, and has stood since, is there again:
  /// what time alone has changed is put back. Returns what `reset` does.
  uint32_t renew(const MachineConfig& instant, ClockPolicy clock);
  /// What machines like this one are made of, memory and state excepted.
  MachineConfig blueprint() const;
  void add_slot(const RegionSpec& spec);
  void remove_slot(uint32_t slot);
  void set_slot_flags(uint32_t slot, uint32_t flags);
  std::vector<uint64_t> dirty_log(uint32_t slot);
  void clear_dirty_log(uint32_t slot, uint64_t first_page, uint32_t pages,
                       std::span<uint64_t> bitmap);
  /// One tracker at a time: else ERR_STATE. See DirtyTracking.
  void start_tracking(TrackerKind kind);
  /// `asked` is when the guest was first kicked.
  DirtyEpoch harvest_dirty(std::chrono::steady_clock::time_point asked);
  void stop_tracking();

 private:
  struct Solo {
    unsigned vcpu;
    bool dispatch;
    SoloDone done;
  };

  Machine(MachineConfig config, std::unique_ptr<MachineEvents> events);

  void build(std::optional<PagingOptions> paging);
  void start_paging(PagingOptions options, const std::shared_ptr<const Image>& image);
  void abort_paging(const Error& why);
  /// In a job.
  void drop_paging();
  /// Throws ERR_STATE while pages come on demand.
  void require_all_pages(const char* call) const;
  void paging_failed(const Error& error) override;
  void paging_ended(bool readable) override;
  void destroy();
  void require_log(const char* call) const;
  Vcpu& vcpu(unsigned index);
  /// Does `work`, which changes the machine in steps. If it throws, whatever it throws, the machine
  /// is poisoned, so that nobody goes on with half a change; what comes through is an Error.
  template <typename Work>
  auto change(const Work& work) {
    try {
      return work();
    } catch (...) {
      Error error = current_error();
      poison(error);
      throw Error(error);
    }
  }
  void poison(const Error& error) noexcept;
  /// Throws ERR_STATE for an instant of another kind of machine, or without the time it was.
  void require_reachable(const MachineConfig& instant, ClockPolicy clock) const;
  void tell_given_up(const Error& error) noexcept;
  /// With `mutex_` held: throws unless the status is one of `allowed`.
  void require(std::initializer_list<Status> allowed, const char* call) const;
  void require_standing(Access access) const;
  void require_open() const;
  /// A run that was paused still has its exit to deliver. `mutex_` is held.
  void require_no_solo(const char* call) const;
  RamSizes ram_sizes() const;
  /// Finishes what exits have left open. It is a change.
  void settle_all();
  void set_msrs(unsigned vcpu, std::span<const uint8_t> bytes);
  /// May leave half of it behind when it throws.
  using LoadVcpu = void (VcpuRegisters::*)(const VcpuState&);
  void apply_state(const MachineState& state, LoadVcpu load, ClockPolicy clock);
  uint32_t begin_life(const MachineState& state);
  /// With `mutex_` held: the machine stands, at that state.
  void stand_at(const MachineState& state);
  void tell_stopped(const MachineState& state, uint32_t life);
  std::optional<StoppedState> stopped_state() const;
  /// Refused, with nothing done, if files of `whole` were cut short; null: not looked at.
  template <typename PutBack>
  uint32_t go_back(const MachineConfig& instant, const Image* whole, ClockPolicy clock,
                   const PutBack& put_back);
  void put_back_state(const std::shared_ptr<const MachineState>& state,
                      std::span<const GpaRange> written, ClockPolicy clock);

  // On a vCPU's thread.
  void run_vcpu(unsigned index) override;
  void parked(unsigned index) override;
  void wake_waiters() override;
  void job_failed(const Error& error) override { poison(error); }
  void stop(StopReason reason, uint32_t code) override;
  void handle_exit(unsigned index, const Exit& exit);
  void dispatch_or_deliver(unsigned index, const Exit& exit);
  /// False when nobody answers at the address.
  bool dispatch(unsigned index, const Exit& exit);
  bool access_bus(unsigned index, const Exit& exit, const IoBus& bus, uint64_t address,
                  size_t size);
  void ask_owner(unsigned index, ClaimId claim, const Exit& exit);
  void refuse_ram(const MmioExit& mmio) const;
  void settle(unsigned index);
  void close_answer(Vcpu& cpu);
  void abandon_exit(unsigned index);
  void note_breach(const Exit& exit);
  void require_same_kind(const MachineConfig& other) const;
  void throttle(unsigned index);
  void excuse_absence(const Vcpu& cpu) const;
  void end(Status status, Stop stop);
  /// The guest stopped the machine, or seems to have: see machine_run.cc.
  void stop_for(Stop stop);
  void fail(const Error& error) noexcept;
  /// True when the exit went to whoever called run_solo.
  bool deliver_solo(unsigned index, const Exit& exit, bool dispatched);
  /// False when that is not why it came back.
  bool drain_full_ring(unsigned index, const Exit& exit);
  void finish_solo(std::variant<OwnedExit, Error> result);
  /// Whether nothing is left that a vCPU's own thread has to finish in KVM_RUN before such work. In
  /// a job.
  bool at_rest(Access access);
  bool abandoned() const { return crew_.dismissed() || killed_.load(std::memory_order_seq_cst); }
  /// Settles every vCPU, and notes what its timer does.
  void stand_all();
  /// The same for `pause`, which has nobody to tell of a failure: the machine is poisoned.
  void come_to_stand();

  /// Does not change but for `image` and `state`, which are dropped once the machine is built.
  MachineConfig config_;
  std::unique_ptr<MachineEvents> events_;

  /// Guards what follows; taken before any other lock.
  mutable std::mutex mutex_;
  Status status_ = Status::Created;
  /// How the guest ended it in this life, also once it was killed.
  std::optional<StoppedState> stopped_;
  /// A reset that is under way has poisoned it, and tells of that only if it fails.
  bool given_up_ = false;
  std::optional<Solo> solo_;
  uint32_t life_ = 0;
  /// Everything is freed.
  bool gone_ = false;
  std::vector<std::function<void()>> when_closed_;
  ClaimId next_claim_ = 1;
  std::shared_ptr<Pager> pager_;

  std::atomic<bool> killed_ = false;
  std::atomic<uint32_t> device_accesses_ = 0;
  /// The first time KVM may take its time: see Translations.
  std::atomic<bool> reset_before_ = false;

  OutputBuffer serial_output_;
  OutputBuffer debug_output_;
  IoBus ports_;
  IoBus mmio_;
  // In this order, so that vCPUs go before the VM and the VM before the memory it maps.
  GuestMemory memory_;
  Translations translations_;
  Confinement confinement_;
  VmFd vm_;
  MemorySlots slots_{vm_, memory_};
  /// Guarded by the devices' lock.
  IrqLines irq_lines_{vm_};
  std::unique_ptr<DirtyRings> rings_;
  DirtyTracking tracking_;
  std::unique_ptr<DeviceSet> devices_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  Crew crew_;
};

}  // namespace kvmsnap
