// The rendezvous of vCPU threads, without KVM: threads that wait where vCPUs would run. What TSan
// and a lost wake-up have to say about start, pause, kick, job and dismiss shows here.
#include "vmm/crew.h"

#include <poll.h>
#include <signal.h>

#include <chrono>
#include <random>

#include "test/catch.h"
#include "vmm/kick.h"
#include "vmm/output_buffer.h"

namespace kvmsnap {

namespace {

using namespace std::chrono_literals;

template <typename Condition>
bool eventually(Condition&& condition) {
  auto limit = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(50us);
  }
  return true;
}

class Rehearsal final : public CrewWork {
 public:
  explicit Rehearsal(unsigned count) : pages_(count), entries_(count), crew_(*this) {
    // Full, and nobody takes: who waits for room waits for a wake-up.
    std::vector<uint8_t> much(1 << 20);
    output_.set_flowing(false);
    output_.write(much);
  }

  Crew& crew() { return crew_; }
  unsigned inside() const { return inside_; }
  unsigned entries(unsigned index) const { return entries_[index]; }
  bool ended() const { return ended_; }
  bool lost() const { return lost_; }
  unsigned failed_jobs() const { return failed_jobs_; }
  const std::string& failed_code() const { return failed_code_; }

  static std::shared_ptr<Rehearsal> launch(unsigned count, bool dismiss_first = false) {
    auto self = std::make_shared<Rehearsal>(count);
    self->crew_.commission(self, [bare = self.get()] { bare->ended_ = true; });
    // As when a machine could not be built.
    if (dismiss_first) {
      self->crew_.dismiss();
      return self;
    }
    std::vector<kvm_run*> pages;
    for (kvm_run& page : self->pages_) pages.push_back(&page);
    self->crew_.enlist(pages);
    self->crew_.muster();
    return self;
  }

  void run_vcpu(unsigned index) override {
    inside_++;
    std::minstd_rand random(index + 1);
    kvm_run& run = pages_[index];
    while (crew_.may_run(index)) {
      entries_[index]++;
      switch (random() % 3) {
        case 0:
          output_.wait_for_room([&] { return !crew_.may_run(index); });
          break;
        default:
          // Short entries are those that end by an exit.
          if (enter(run, random() % 4 == 0 ? 0ms : 20000ms)) clear_kick(run);
      }
    }
    clear_kick(run);
    inside_--;
  }
  void parked(unsigned) override {}
  void job_failed(const Error& error) override {
    failed_code_ = error.code();
    failed_jobs_++;
  }
  void wake_waiters() override { output_.wake(); }

 private:
  // As KVM_RUN does: returns true at once when `immediate_exit` is set, or when a signal comes,
  // with no gap between the two. Else false, when the guest has had its time.
  bool enter(kvm_run& run, std::chrono::milliseconds time) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool kicked = std::atomic_ref<__u8>(run.immediate_exit).load() != 0;
    if (!kicked) {
      timespec limit = {.tv_sec = time.count() / 1000, .tv_nsec = 0};
      kicked = ::ppoll(nullptr, 0, &limit, &before) < 0;
      if (!kicked && time > 0ms) lost_ = true;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return kicked;
  }

  std::vector<kvm_run> pages_;
  std::vector<std::atomic<unsigned>> entries_;
  std::atomic<unsigned> inside_ = 0;
  std::atomic<bool> ended_ = false;
  std::atomic<bool> lost_ = false;
  std::atomic<unsigned> failed_jobs_ = 0;
  std::string failed_code_;
  OutputBuffer output_{[] {}};
  Crew crew_;
};

}  // namespace

TEST_CASE("crew: a job that throws is told of, and the next one is done") {
  auto rehearsal = Rehearsal::launch(2);
  std::atomic<bool> next = false;
  rehearsal->crew().set_running(true);
  rehearsal->crew().submit([](bool) { throw std::bad_alloc(); });
  rehearsal->crew().submit([&](bool) { next = true; });
  while (!next) std::this_thread::sleep_for(1ms);
  CHECK(rehearsal->failed_jobs() == 1);
  CHECK(rehearsal->failed_code() == "ERR_SYSTEM");
  rehearsal->crew().dismiss();
  while (!rehearsal->ended()) std::this_thread::sleep_for(1ms);
}

TEST_CASE("crew: jobs find every vCPU parked, in order, and each is told once") {
  for (unsigned vcpus : {1u, 2u, 5u}) {
    for (unsigned seed = 1; seed <= 8; seed++) {
      INFO(vcpus << " vCPUs, seed " << seed);
      std::minstd_rand random(seed);
      auto rehearsal = Rehearsal::launch(vcpus);
      Crew& crew = rehearsal->crew();
      std::atomic<unsigned> disturbed = 0, disordered = 0, done = 0, called = 0, cancelled = 0;
      unsigned submitted = 0;
      auto submit = [&] {
        auto prepared = std::make_shared<std::atomic<bool>>(random() % 4 != 0);
        std::function<void()> before;
        if (!*prepared) {
          before = [rehearsal, prepared, time = random() % 200] {
            std::this_thread::sleep_for(std::chrono::microseconds(time));
            *prepared = true;
          };
        }
        crew.submit(
            [&, prepared, number = submitted++](bool cancel) {
              // One that is cancelled may be told at once, by whoever submits it.
              if (!cancel && (rehearsal->inside() != 0 || !*prepared)) disturbed++;
              if (!cancel && done++ != number) disordered++;
              if (cancel) cancelled++;
              called++;
            },
            before);
      };
      for (int step = 0; step < 400; step++) {
        switch (random() % 5) {
          case 0:
            crew.set_running(false);
            break;
          case 1:
            crew.set_running(true, random() % vcpus);
            break;
          case 2:
            crew.set_running(true);
            break;
          default:
            submit();
        }
        if (random() % 8 == 0)
          std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
      }
      REQUIRE(eventually([&] { return called == submitted; }));
      REQUIRE(cancelled == 0);
      for (int i = 0; i < 5; i++) submit();
      crew.dismiss();
      submit();
      REQUIRE(eventually([&] { return rehearsal->ended(); }));
      REQUIRE(called == submitted);
      REQUIRE(cancelled >= 1);
      REQUIRE(rehearsal->inside() == 0);
      REQUIRE(disturbed == 0);
      REQUIRE(disordered == 0);
      REQUIRE_FALSE(rehearsal->lost());
    }
  }
}

TEST_CASE("crew: vCPUs that may run do, all or only one, also after a job") {
  auto rehearsal = Rehearsal::launch(3);
  Crew& crew = rehearsal->crew();
  for (int round = 0; round < 200; round++) {
    INFO("round " << round);
    unsigned before[3];
    for (unsigned i = 0; i < 3; i++) before[i] = rehearsal->entries(i);
    if (round % 2 == 0) {
      crew.set_running(true);
      REQUIRE(eventually([&] { return rehearsal->inside() == 3; }));
      crew.submit([](bool) {});
      REQUIRE(eventually([&] {
        return rehearsal->entries(0) > before[0] && rehearsal->entries(1) > before[1] &&
               rehearsal->entries(2) > before[2];
      }));
    } else {
      crew.set_running(true, 1);
      REQUIRE(eventually([&] { return rehearsal->inside() == 1 && crew.may_run(1); }));
      REQUIRE_FALSE(crew.may_run(0));
      REQUIRE_FALSE(crew.may_run(2));
    }
    crew.set_running(false);
    REQUIRE(eventually([&] { return rehearsal->inside() == 0; }));
  }
  crew.dismiss();
  REQUIRE(eventually([&] { return rehearsal->ended(); }));
  REQUIRE_FALSE(rehearsal->lost());
}

TEST_CASE("crew: vCPUs run on while a job is prepared, and the next job waits behind it") {
  auto rehearsal = Rehearsal::launch(2);
  Crew& crew = rehearsal->crew();
  crew.set_running(true);
  for (int round = 0; round < 50; round++) {
    INFO("round " << round);
    std::atomic<bool> go = false, prepared = false;
    std::atomic<unsigned> done = 0;
    crew.submit([&](bool) { done += prepared ? 1 : 100; },
                [&, rehearsal] { prepared = eventually([&] { return go.load(); }); });
    crew.submit([&](bool) { done += 1; });
    REQUIRE(eventually([&] { return rehearsal->inside() == 2; }));
    REQUIRE(done == 0);
    go = true;
    REQUIRE(eventually([&] { return done == 2; }));
  }
  crew.dismiss();
  REQUIRE(eventually([&] { return rehearsal->ended(); }));
}

TEST_CASE("crew: a caller's own job is done when all stand, refused when they do not") {
  auto rehearsal = Rehearsal::launch(2);
  Crew& crew = rehearsal->crew();
  unsigned done = 0;
  for (unsigned round = 0; round < 300; round++) {
    crew.set_running(round % 2 == 0);
    if (round % 4 == 3) crew.submit([](bool) {});
    bool own = false;
    auto attempt = [&] {
      return crew.try_job([&] {
        own = true;
        REQUIRE(rehearsal->inside() == 0);
        return true;
      });
    };
    if (round % 2 == 0) {
      REQUIRE_FALSE(attempt());
      REQUIRE_FALSE(own);
      // One that begins while the job is done waits for its end.
      REQUIRE(eventually([&] { return rehearsal->inside() == 2; }));
    } else {
      REQUIRE(eventually(attempt));
      done++;
    }
  }
  REQUIRE(done == 150);
  // Refused by the job itself, and the next one is not held up by that.
  REQUIRE_FALSE(crew.try_job([] { return false; }));
  REQUIRE(crew.try_job([] { return true; }));
  crew.dismiss();
  REQUIRE_FALSE(crew.try_job([] { return true; }));
  REQUIRE(eventually([&] { return rehearsal->ended(); }));
}

TEST_CASE("crew: dismissed at any moment, even when it never became whole") {
  for (unsigned round = 0; round < 300; round++) {
    auto rehearsal = Rehearsal::launch(1 + round % 4, round % 7 == 0);
    std::atomic<unsigned> told = 0;
    if (round % 3 != 0) rehearsal->crew().set_running(true);
    rehearsal->crew().submit([&](bool) { told++; });
    if (round % 5 == 0) std::this_thread::sleep_for(std::chrono::microseconds(round));
    rehearsal->crew().dismiss();
    REQUIRE(eventually([&] { return rehearsal->ended(); }));
    REQUIRE(told == 1);
  }
}

}  // namespace kvmsnap
