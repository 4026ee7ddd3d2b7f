// The processes that train one model together, as one of them sees the others.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace deq {

/// Everybody calls the same member, with tensors of the same shapes and types, in the same order;
/// each call returns once all have. Tensors are contiguous and on the CPU. Throws deq::Error, with
/// rank and reason, where another process is gone or does not answer in time.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  virtual int64_t rank() const = 0;  ///< of this process, 0 .. size() - 1
  virtual int64_t size() const = 0;
  virtual int64_t local_rank() const = 0;  ///< among the processes of its machine
  bool first() const { return rank() == 0; }
  bool several() const { return size() > 1; }

  /// (size, ...): what each process holds, by rank.
  virtual at::Tensor gather(const at::Tensor& own) = 0;
  /// Part r of `parts`, (size, ...), goes to rank r; part s of the result came from rank s.
  virtual at::Tensor exchange(const at::Tensor& parts) = 0;
  /// Puts what rank 0 holds into everybody's tensor.
  virtual void broadcast(at::Tensor& tensor) = 0;

  /// The same processes over connections of their own, for another thread.
  virtual std::shared_ptr<ProcessGroup> another() = 0;
  /// What errors say this process was doing.
  virtual void doing(const std::string& what) = 0;
};

/// One process by itself.
std::shared_ptr<ProcessGroup> alone();

/// Texts of all processes, by rank; those of rank 0 to everybody. Of any length.
std::vector<std::string> gather_texts(ProcessGroup& group, const std::string& own);
std::string broadcast_text(ProcessGroup& group, const std::string& text);
/// Rank 0's tensors to everybody, on the CPU; what others hand in is ignored.
std::map<std::string, at::Tensor> broadcast_tensors(
    ProcessGroup& group, const std::map<std::string, at::Tensor>& tensors);

/// Each process does its part; where one fails all throw deq::Error: it its own, the others that of
/// the first that failed, with its rank.
void together(ProcessGroup& group, const std::function<void()>& part);

/// Throws deq::Error, naming the first line that differs from rank 0's, unless all processes have
/// the same value for each name.
void check_alike(ProcessGroup& group, const std::map<std::string, std::string>& values);

}  // namespace deq
