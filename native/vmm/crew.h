// The threads of a machine: one for each vCPU, started parked, and the rendezvous between them.
// They are made when there is something to do: a machine that only waits to be used has none.
//
// Whatever needs the machine to stand still is a job. Jobs run one after the other on the thread of
// vCPU 0, the leader, once every vCPU is parked; vCPUs that were running go on afterwards. So no
// further thread is needed, JavaScript never waits, and a snapshot's pause has one hop. A short job
// for a machine that stands anyway may be done by the caller itself (`try_job`): two changes of
// thread cost more than most such jobs.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "kvm/error.h"
#include "kvm/uapi.h"

namespace kvmsnap {

/// What the threads do. Implemented by the machine.
class CrewWork {
 public:
  virtual ~CrewWork() = default;
  /// Runs the guest on vCPU `index` until `Crew::may_run(index)` is false. Must not throw.
  virtual void run_vcpu(unsigned index) = 0;
  /// On the same thread when it is back from there: jobs may be done from now on. Must not throw.
  virtual void parked(unsigned index) = 0;
  /// A job threw, which it should not. Must not throw.
  virtual void job_failed(const Error& error) = 0;
  /// Wakes threads that wait for anything but KVM_RUN, so that they look at `may_run` again.
  virtual void wake_waiters() = 0;
};

class Crew {
 public:
  /// `cancelled`: the crew is being dismissed, the job's work must not be done.
  using Job = std::function<void(bool cancelled)>;

  explicit Crew(CrewWork& work) : work_(work) {}

  /// Before anything else. The leader runs `last` once it is dismissed and alone; `owner` keeps the
  /// machine alive until then, so that every crew has to be dismissed.
  void commission(std::shared_ptr<void> owner, std::function<void()> last);
  /// Called once the vCPUs are there.
  void enlist(const std::vector<kvm_run*>& run_pages);

  /// Starts the threads, unless they are there. Throws ERR_SYSTEM when none can be had, which after
  /// this `submit` and `set_running` do not.
  void muster();
  /// `before` is done first, on a thread of its own, while vCPUs run on; later jobs wait behind. It
  /// keeps the owner alive.
  void submit(Job job, const std::function<void()>& before = nullptr);
  /// Does `work` here and now if no vCPU runs or is to run and no other job waits. False: it was
  /// not done. What `work` throws comes through.
  template <typename Work>
  bool try_job(const Work& work) {
    if (!begin_job()) return false;
    struct End {
      Crew& crew;
      ~End() { crew.end_job(); }
    } end{*this};
    return work();
  }
  /// Lets vCPUs run, all or only one, whenever no job waits.
  void set_running(bool running, std::optional<unsigned> only = std::nullopt);
  /// Whether vCPU `index` may go on in the guest. Cheap: asked before every KVM_RUN.
  bool may_run(unsigned index) const {
    return allowed_ && index < allowed_count_ && allowed_[index].load(std::memory_order_seq_cst);
  }
  /// Ends all threads as soon as they are out of the guest; waiting jobs are cancelled.
  void dismiss();
  bool dismissed() const { return dismissed_.load(std::memory_order_seq_cst); }

 private:
  struct Waiting {
    Job job;
    /// False while its `before` is going on.
    std::shared_ptr<bool> due;
  };

  bool begin_job();
  void end_job();
  /// With `mutex_` held.
  void start_threads();
  void lead(const std::function<void()>& last);
  void serve(unsigned index);
  void prepare(const std::function<void()>& before, const std::shared_ptr<bool>& due);
  /// All with `mutex_` held.
  bool job_due() const { return !jobs_.empty() && *jobs_.front().due; }
  bool wanted(unsigned index) const;
  void refresh();

  CrewWork& work_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> jobs_;
  bool job_in_progress_ = false;
  bool running_ = false;
  std::optional<unsigned> only_;
  std::atomic<bool> dismissed_ = false;

  /// By vCPU. `allowed_` is what `wanted` said at the last change, readable without the lock.
  std::unique_ptr<std::atomic<bool>[]> allowed_;
  std::atomic<unsigned> allowed_count_ = 0;
  std::vector<kvm_run*> run_pages_;
  std::vector<pthread_t> threads_;
  std::vector<bool> inside_;
  unsigned inside_count_ = 0;
  std::vector<std::thread> helpers_;
  /// Until the leader has been started, which takes them over.
  std::shared_ptr<void> owner_;
  std::function<void()> last_;
};

}  // namespace kvmsnap
