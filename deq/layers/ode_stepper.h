// One step of a method, for all rows of a batch that are on their way.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "deq/layers/ode_field.h"
#include "deq/layers/ode_tableaus.h"
#include "deq/ops/stages.h"

namespace deq::ode {

/// The rows of a batch and what a step of theirs needs. Tensors have room for all samples; the
/// first `rows` count. y(t + theta h) = y + scale * sum_j w_j(theta) k_j.
struct Work {
  Work(int64_t samples, int64_t width, int64_t stages, const at::TensorOptions& options);

  int64_t rows = 0;
  std::vector<int64_t> sample;  ///< of each row
  std::vector<double> t, h, scale;
  at::Tensor y, next;              ///< (B, width)
  at::Tensor k;                    ///< (S, B, width)
  std::vector<char> known;         ///< rows whose k_0, or what stands in its place, is of (t, y)
  std::vector<at::Tensor> beside;  ///< (B, ...), what a method knows of each row besides

  /// Starts with these samples, whose states are y0 (B, width).
  void fill(const std::vector<int64_t>& samples, const at::Tensor& y0);
  /// Keeps these rows, in order.
  void keep(const std::vector<int64_t>& kept);
  /// (rows) int64, as f is given them; (rows) of t + c h.
  const at::Tensor& index() const { return index_; }
  const at::Tensor& times(double c);
  /// The first rows of a tensor with room for all.
  at::Tensor head(const at::Tensor& of) const { return of.narrow(0, 0, rows); }

 private:
  void views();
  at::Tensor clock_, clock_head_, index_;
};

/// A method in one solve.
class Stepper {
 public:
  virtual ~Stepper() = default;
  /// From y with h to `next`: errors in units of what is allowed, not finite where the step is not.
  virtual std::vector<double> attempt(Work& work) = 0;
  /// Stages that only the continuous extension needs.
  virtual void extend(Work&) {}
  /// Takes `next` for y in the rows that are accepted.
  virtual void advance(Work& work, const std::vector<char>& accepted);
  /// w_j(theta); `inner`: of 0 < theta < 1, where stages of the extension may count.
  virtual std::vector<double> weights(double theta) const = 0;
  virtual int stages() const = 0;
  /// Of those, how many y(t + h) depends on; the others count for inner points alone.
  virtual int own_stages() const { return stages(); }
  /// k_0, ... of a step from y (b, n), of LibTorch's operators alone: on a tape, gradients on.
  virtual std::vector<at::Tensor> taped(const Field& f, const at::Tensor& y,
                                        const std::vector<double>& t, const std::vector<double>& h,
                                        const at::Tensor& rows) const = 0;
  /// Whether scale is h; otherwise 1.
  virtual bool scaled_by_h() const { return true; }
  /// Of an explicit method.
  virtual const Tableau* tableau() const { return nullptr; }
  virtual int error_order() const = 0;
  /// Whether steps end at each time that is asked for: the method has no extension.
  virtual bool lands() const { return false; }
  /// Steps from one time to the next; 0: by the estimate.
  virtual int64_t fixed() const { return 0; }
  virtual int64_t jacobians() const { return 0; }
  virtual int64_t factorisations() const { return 0; }
};

/// Of an explicit pair: k_j = f at the stages, scale = h.
class ExplicitStepper : public Stepper {
 public:
  ExplicitStepper(const Tableau& tableau, const Field& f, ops::Allowance allowed, int64_t fixed);
  std::vector<double> attempt(Work& work) override;
  void extend(Work& work) override;
  void advance(Work& work, const std::vector<char>& accepted) override;
  std::vector<double> weights(double theta) const override;
  int stages() const override { return tableau_.all(); }
  int own_stages() const override { return tableau_.stages - 1; }
  std::vector<at::Tensor> taped(const Field& f, const at::Tensor& y, const std::vector<double>& t,
                                const std::vector<double>& h,
                                const at::Tensor& rows) const override;
  const Tableau* tableau() const override { return &tableau_; }
  int error_order() const override { return tableau_.error_order; }
  bool lands() const override { return fixed_ > 0; }
  int64_t fixed() const override { return fixed_; }

 private:
  void evaluate(Work& work, int stage, const at::Tensor& y);

  const Tableau& tableau_;
  Field f_;
  ops::Allowance allowed_;
  int64_t fixed_;
  at::Tensor inner_;  // (B, n), the state of a stage
};

/// The tableau of an explicit method; null of others.
const Tableau* tableau_of(const OdeMethod& method);
std::unique_ptr<Stepper> stepper_of(const OdeMethod& method, const Field& f,
                                    const ops::Allowance& allowed);

/// t + c h (b), of the type of y.
at::Tensor times_at(const std::vector<double>& t, const std::vector<double>& h, double c,
                    const at::Tensor& y);
/// (b, 1) of the type of y.
at::Tensor column_of(const std::vector<double>& numbers, const at::Tensor& y);

/// k[j] of the first rows.
void store(const at::Tensor& k, int j, const at::Tensor& value, int64_t rows);

}  // namespace deq::ode
