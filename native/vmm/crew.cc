#include "vmm/crew.h"

#include <system_error>

#include "kvm/error.h"
#include "memory/quiet_thread.h"
#include "vmm/kick.h"

namespace kvmsnap {

void Crew::commission(std::shared_ptr<void> owner, std::function<void()> last) {
  owner_ = std::move(owner);
  last_ = std::move(last);
}

void Crew::enlist(const std::vector<kvm_run*>& run_pages) {
  std::lock_guard lock(mutex_);
  unsigned count = static_cast<unsigned>(run_pages.size());
  run_pages_ = run_pages;
  allowed_ = std::make_unique<std::atomic<bool>[]>(count);
  threads_.resize(count);
  inside_.resize(count);
  allowed_count_ = count;
}

void Crew::start_threads() {
  if (owner_ == nullptr) return;
  try {
    while (helpers_.size() + 1 < allowed_count_) {
      unsigned index = static_cast<unsigned>(helpers_.size()) + 1;
      helpers_.emplace_back([this, index] {
        prepare_vcpu_thread();
        serve(index);
      });
    }
    // It ends when the machine is closed, and takes the last reference with it.
    std::thread([this, owner = owner_, last = last_] { lead(last); }).detach();
  } catch (const std::system_error& error) {
    throw Error("ERR_SYSTEM", std::string("no thread for a vCPU: ") + error.what(),
                "pthread_create", error.code().value());
  } catch (...) {
    throw current_error();
  }
  owner_ = nullptr;
  last_ = nullptr;
}

void Crew::muster() {
  std::lock_guard lock(mutex_);
  start_threads();
}

void Crew::lead(const std::function<void()>& last) {
  prepare_vcpu_thread();
  serve(0);
  for (std::thread& helper : helpers_) helper.join();
  last();
}

bool Crew::wanted(unsigned index) const {
  return running_ && !job_due() && !job_in_progress_ && !dismissed_ && (!only_ || *only_ == index);
}

void Crew::refresh() {
  bool revoked = false;
  for (unsigned index = 0; index < allowed_count_; index++) {
    bool now = wanted(index);
    bool before = allowed_[index].exchange(now, std::memory_order_seq_cst);
    if (before && !now) revoked = true;
    // `inside_` changes under the lock only, so the thread is alive and its kvm_run mapped. One
    // that is here is out of the guest, and asks before it enters again.
    if (!now && inside_[index] && !::pthread_equal(threads_[index], ::pthread_self())) {
      kick(threads_[index], *run_pages_[index]);
    }
  }
  // Before `enlist` there are no vCPUs.
  if (allowed_count_ > 0 && (revoked || dismissed_)) work_.wake_waiters();
  changed_.notify_all();
}

void Crew::submit(Job job, const std::function<void()>& before) {
  auto due = std::make_shared<bool>(before == nullptr);
  std::unique_lock lock(mutex_);
  if (dismissed_) {
    lock.unlock();
    return job(true);
  }
  start_threads();
  jobs_.push_back({std::move(job), due});
  refresh();
  lock.unlock();
  if (before) prepare(before, due);
}

void Crew::prepare(const std::function<void()>& before, const std::shared_ptr<bool>& due) {
  auto work = [this, before, due] {
    before();
    std::lock_guard lock(mutex_);
    *due = true;
    refresh();
  };
  try {
    quiet_thread("preparing a job", work).detach();
  } catch (const Error&) {
    // No thread to be had.
    work();
  }
}

bool Crew::begin_job() {
  std::lock_guard lock(mutex_);
  if (running_ || dismissed_ || job_in_progress_ || inside_count_ > 0 || !jobs_.empty()) {
    return false;
  }
  job_in_progress_ = true;
  return true;
}

void Crew::end_job() {
  std::lock_guard lock(mutex_);
  job_in_progress_ = false;
  // Else nobody waits for that.
  if (running_ || dismissed_ || !jobs_.empty()) refresh();
}

void Crew::set_running(bool running, std::optional<unsigned> only) {
  std::lock_guard lock(mutex_);
  if (running_ == running && only_ == only) return;
  running_ = running;
  only_ = only;
  refresh();
}

void Crew::dismiss() {
  std::unique_lock lock(mutex_);
  dismissed_ = true;
  try {
    start_threads();
  } catch (const Error&) {
    // Without a leader nobody else is here, and what it would do is done here.
    auto owner = std::move(owner_);
    auto last = std::move(last_);
    lock.unlock();
    changed_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
    last();
    return;
  }
  refresh();
}

void Crew::serve(unsigned index) {
  std::unique_lock lock(mutex_);
  for (;;) {
    bool leads = index == 0;
    bool free = inside_count_ == 0 && !job_in_progress_;
    if (leads && job_due() && free) {
      Job job = std::move(jobs_.front().job);
      jobs_.pop_front();
      job_in_progress_ = true;
      bool cancelled = dismissed_;
      lock.unlock();
      try {
        job(cancelled);
      } catch (...) {
        work_.job_failed(current_error());
      }
      // Captures may hold references whose release takes locks.
      job = nullptr;
      lock.lock();
      job_in_progress_ = false;
      refresh();
    } else if (dismissed_ && (!leads || (free && jobs_.empty()))) {
      return;
    } else if (wanted(index)) {
      threads_[index] = ::pthread_self();
      inside_[index] = true;
      inside_count_++;
      allowed_[index].store(true, std::memory_order_seq_cst);
      lock.unlock();
      work_.run_vcpu(index);
      lock.lock();
      inside_[index] = false;
      if (--inside_count_ == 0) changed_.notify_all();
      lock.unlock();
      work_.parked(index);
      lock.lock();
    } else {
      changed_.wait(lock);
    }
  }
}

}  // namespace kvmsnap
