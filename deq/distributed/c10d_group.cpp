// Gloo's connections as a ProcessGroup, which meet through a TCPStore.
#include "deq/distributed/rendezvous.h"
#ifdef DEQ_WITH_DISTRIBUTED
#include <ATen/ATen.h>

#include <chrono>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "deq/base/error.h"
#include "deq/distributed/address.h"
#include "deq/distributed/c10d_store.h"
#include "deq/distributed/no_sigpipe.h"
#include "deq/distributed/peer_watch.h"
#include "deq/distributed/quiet_logs.h"

namespace deq {

using at::Tensor;

namespace {

using Gloo = c10d::ProcessGroupGloo;
using Store = c10::intrusive_ptr<c10d::Store>;
using Milliseconds = std::chrono::milliseconds;

Milliseconds milliseconds(double seconds) { return Milliseconds(int64_t(1000 * seconds)); }

/// What all connections of a process know together.
struct Member {
  Rendezvous meeting;
  double timeout = 0;
  Store store;
  std::string address;
  std::function<void(const std::string&)> lost;

  std::mutex mutex;
  std::string doing = "start";
  int64_t gone = -1;     // the first process that was missed
  bool failing = false;  // the thread that trains has noticed, or is done
  int64_t connections = 0;
  std::vector<std::thread> waiting;

  std::unique_ptr<PeerWatch> watch;  // ends first

  ~Member() {
    settle();
    watch.reset();
    for (std::thread& thread : waiting) thread.join();
  }

  void settle() {
    const std::lock_guard lock(mutex);
    failing = true;
  }

  std::string at() {
    const std::lock_guard lock(mutex);
    return doing;
  }

  /// On the watch's thread.
  void misses(int64_t rank) {
    const std::lock_guard lock(mutex);
    if (gone >= 0) return;
    gone = rank;
    if (!failing && lost) waiting.emplace_back([this] { tell_later(); });
  }

  /// The thread that trains notices by itself when it next sends, unless that is long from now.
  void tell_later() {
    for (int i = 0; i < 100; ++i) {
      std::this_thread::sleep_for(Milliseconds(10));
      const std::lock_guard lock(mutex);
      if (failing) return;
    }
    lost(fmt::format("rank {} is gone, while rank {} was at {}", gone, meeting.rank, at()));
  }

  [[noreturn]] void fail(const std::exception& error) {
    const std::string why = reason_of(error);
    const bool late = why.find("imed out") != why.npos;
    for (int i = 0; i < 20 && !late; ++i) {  // the watch knows who it was
      {
        const std::lock_guard lock(mutex);
        failing = true;
        if (gone >= 0) break;
      }
      std::this_thread::sleep_for(Milliseconds(10));
    }
    settle();
    if (late)
      throw Error(fmt::format("rank {} at {}: no answer from another process within {} s ({})",
                              meeting.rank, doing, timeout, why));
    if (gone >= 0)
      throw Error(fmt::format("rank {} is gone, while rank {} was at {}: {}", gone, meeting.rank,
                              doing, why));
    throw Error(fmt::format("rank {} at {}: {}", meeting.rank, doing, why));
  }
};

c10::intrusive_ptr<Gloo> connect(Member& member) {
  const auto options = Gloo::Options::create(milliseconds(member.timeout));
  const char* interfaces = std::getenv("GLOO_SOCKET_IFNAME");
  if (interfaces && *interfaces) {
    const std::string names = interfaces;
    for (size_t begin = 0; begin <= names.size();) {
      const size_t end = std::min(names.find(',', begin), names.size());
      options->devices.push_back(Gloo::createDeviceForInterface(names.substr(begin, end - begin)));
      begin = end + 1;
    }
  } else {
    options->devices.push_back(Gloo::createDeviceForHostname(member.address));
  }
  const auto store = c10::make_intrusive<c10d::PrefixStore>(
      fmt::format("connections/{}", member.connections++), member.store);
  return c10::make_intrusive<Gloo>(store, int(member.meeting.rank), int(member.meeting.size),
                                   options);
}

/// The memory of a contiguous tensor: Gloo moves few types, and bytes among them.
Tensor bytes_of(const Tensor& tensor) {
  return at::from_blob(tensor.data_ptr(), {int64_t(tensor.nbytes())}, at::kByte);
}

class GlooGroup final : public ProcessGroup {
 public:
  explicit GlooGroup(std::shared_ptr<Member> member) : member_(std::move(member)) {
    guarded([&] { gloo_ = connect(*member_); });
  }

  int64_t rank() const override { return member_->meeting.rank; }
  int64_t size() const override { return member_->meeting.size; }
  int64_t local_rank() const override { return member_->meeting.local_rank; }

  Tensor gather(const Tensor& own) override {
    const Tensor in = own.contiguous();
    std::vector<int64_t> shape = own.sizes().vec();
    shape.insert(shape.begin(), size());
    const Tensor all = at::empty(shape, own.options());
    all[rank()].copy_(in);
    swap([&](int64_t) { return in; }, all);
    return all;
  }

  Tensor exchange(const Tensor& parts) override {
    const Tensor in = parts.contiguous(), all = at::empty_like(in);
    all[rank()].copy_(in[rank()]);
    swap([&](int64_t to) { return in[to]; }, all);
    return all;
  }

  void broadcast(Tensor& tensor) override {
    if (tensor.numel() == 0) return;
    std::vector<Tensor> tensors{bytes_of(tensor)};
    guarded([&] { gloo_->broadcast(tensors)->wait(); });
  }

  std::shared_ptr<ProcessGroup> another() override { return std::make_shared<GlooGroup>(member_); }

  void doing(const std::string& what) override {
    const std::lock_guard lock(member_->mutex);
    member_->doing = what;
  }

  void abandon() {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
    for (const auto& work : under_way_) work->abort();
  }

  void leave() {
    gather(at::zeros({1}));
    member_->settle();
    if (member_->watch) member_->watch->leave();
  }

 private:
  /// `sent(r)` to every other rank r, whose own goes straight into row r of `received`. (Gloo's
  /// collectives copy everything once more.)
  template <class Sent>
  void swap(const Sent& sent, const Tensor& received) {
    if (received.numel() == 0) return;
    guarded([&] {
      const Ended ended(*this);
      {
        const std::lock_guard lock(mutex_);
        DEQ_CHECK(!abandoned_, "rank {} at {}: nobody waits any more", rank(), member_->at());
        for (int64_t i = 1; i < size(); ++i) {
          const int64_t to = (rank() + i) % size(), from = (rank() + size() - i) % size();
          std::vector<Tensor> in{bytes_of(received[from])}, out{bytes_of(sent(to))};
          under_way_.push_back(gloo_->recv(in, int(from), 0));
          under_way_.push_back(gloo_->send(out, int(to), 0));
        }
      }
      for (const auto& work : under_way_) {
        DEQ_CHECK(work->wait(), "rank {} at {}: nobody waits any more", rank(), member_->at());
      }
    });
  }

  /// Forgets what was under way, however it ended.
  struct Ended {
    explicit Ended(GlooGroup& group) : group(group) {}
    ~Ended() {
      const std::lock_guard lock(group.mutex_);
      group.under_way_.clear();
    }
    GlooGroup& group;
  };

  template <class Action>
  void guarded(Action&& action) {
    const NoSigpipe mask;
    try {
      action();
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {
      member_->fail(error);
    }
  }

  std::shared_ptr<Member> member_;
  c10::intrusive_ptr<Gloo> gloo_;
  std::mutex mutex_;
  std::vector<c10::intrusive_ptr<c10d::Work>> under_way_;
  bool abandoned_ = false;
};

Store meet(const Rendezvous& meeting, double timeout) {
  const bool serves = meeting.rank == 0 && !meeting.served;
  Store store;
  try {
    store = open_store(meeting.address, meeting.port, serves, milliseconds(timeout));
  } catch (const std::exception& error) {
    throw Error(fmt::format("rank {} cannot {} {}:{}: {}", meeting.rank,
                            serves ? "serve at" : "reach", meeting.address, meeting.port,
                            reason_of(error)));
  }
  // The launcher's store outlives a start.
  return c10::make_intrusive<c10d::PrefixStore>(fmt::format("deq/{}", meeting.restarts), store);
}

std::string key_of(int64_t rank) { return fmt::format("rank/{}", rank); }

/// The listeners of all, by rank, once all have come.
std::vector<std::string> places_of_all(Member& member, const Listener& listener) {
  const std::string own = listener.place();
  member.store->set(key_of(member.meeting.rank), std::vector<uint8_t>(own.begin(), own.end()));
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::string> places;
  for (int64_t r = 0; r < member.meeting.size; ++r) {
    const auto left = milliseconds(member.timeout) - std::chrono::duration_cast<Milliseconds>(
                                                         std::chrono::steady_clock::now() - start);
    try {
      member.store->wait({key_of(r)}, std::max(left, Milliseconds(1)));
      const std::vector<uint8_t> place = member.store->get(key_of(r));
      places.emplace_back(place.begin(), place.end());
    } catch (const std::exception& error) {
      throw Error(fmt::format(
          "rank {} did not come to {}:{} within {} s, which rank {} waited; expected {} processes",
          r, member.meeting.address, member.meeting.port, member.timeout, member.meeting.rank,
          member.meeting.size));
    }
  }
  return places;
}

}  // namespace

std::shared_ptr<ProcessGroup> join(const Rendezvous& meeting, double timeout,
                                   const std::function<void(const std::string&)>& lost) {
  if (meeting.size == 1) return alone();
  const QuietLogs quiet;
  const auto member = std::make_shared<Member>();
  member->meeting = meeting;
  member->timeout = timeout;
  member->lost = lost;
  member->address = own_address(meeting.address);
  member->store = meet(meeting, timeout);
  const Listener listener(member->address);
  const std::vector<std::string> places = places_of_all(*member, listener);
  member->watch =
      std::make_unique<PeerWatch>(meeting.rank, places, listener, timeout,
                                  [m = member.get()](int64_t rank) { m->misses(rank); });
  return std::make_shared<GlooGroup>(member);
}

void leave(ProcessGroup& group) {
  if (auto* gloo = dynamic_cast<GlooGroup*>(&group)) gloo->leave();
}

void abandon(ProcessGroup& group) {
  if (auto* gloo = dynamic_cast<GlooGroup*>(&group)) gloo->abandon();
}

bool can_join() { return true; }
const char* why_alone() { return ""; }

}  // namespace deq
#else
#include "deq/base/error.h"

namespace deq {

const char* why_alone() {
  return "this build has no c10d with Gloo (libgloo-dev was not there when it was made)";
}

bool can_join() { return false; }

std::shared_ptr<ProcessGroup> join(const Rendezvous& meeting, double,
                                   const std::function<void(const std::string&)>&) {
  DEQ_CHECK(meeting.size == 1, "{} processes: {}; expected 1", meeting.size, why_alone());
  return alone();
}

void leave(ProcessGroup&) {}
void abandon(ProcessGroup&) {}

}  // namespace deq
#endif
