#include "python/reports.h"

#include <torch/csrc/utils/pybind.h>

#include "python/bindings.h"

namespace deq::python {
namespace {

using Class = py::class_<SolveReport>;

template <class T>
void add_number(Class& type, const char* name, T Report::*member, const char* about) {
  type.def_property_readonly(
      name, [member](const SolveReport& self) { return self.report.*member; }, about);
}

template <class T>
void add_answer(Class& type, const char* name, T (Report::*ask)() const, const char* about) {
  type.def_property_readonly(
      name, [ask](const SolveReport& self) { return (self.report.*ask)(); }, about);
}

void add_tensors(Class& type) {
  add_number(type, "reason", &Report::reason, "(R) uint8, a deq.Reason for each row");
  add_number(type, "residual", &Report::residual,
             "(R) double, |f(z) - z| / |f(z)| of the state that is returned");
  add_number(type, "steps", &Report::steps, "(R) int64, steps until the row was done");
  add_number(type, "trace", &Report::trace,
             "(steps, R) double, the relative residual before each step");
  add_number(type, "rate", &Report::rate,
             "(R) double, the share of a row's last change that f passed on; NaN: not known");
}

void add_numbers(Class& type) {
  add_number(type, "evaluations", &Report::evaluations, "calls of f, whatever they were for");
  add_number(type, "bad_starts", &Report::bad_starts,
             "rows that are not finite because their z0 was not");
  add_number(type, "max_steps", &Report::max_steps, "the limit in force");
  add_number(type, "rel_tol", &Report::rel_tol, "the relative tolerance in force");
  add_number(type, "abs_tol", &Report::abs_tol, "the absolute tolerance in force");
  add_answer(type, "converged", &Report::converged, "whether every row did");
  add_answer(type, "converged_share", &Report::converged_share, "of the rows, in [0, 1]");
  add_answer(type, "worst_residual", &Report::worst_residual, "the largest; NaN if any is NaN");
  add_answer(type, "mean_residual", &Report::mean_residual, "the mean over rows");
  add_answer(type, "error_estimate", &Report::error_estimate,
             "about how far z is from the solution, as a share of |f(z)|; NaN: not known");
}

void bind_reason(py::module_& module) {
  py::enum_<Reason>(module, "Reason", "Why a row of a solve stopped.")
      .value("CONVERGED", Reason::Converged)
      .value("MAX_STEPS", Reason::MaxSteps)
      .value("DIVERGED", Reason::Diverged)
      .value("NON_FINITE", Reason::NonFinite)
      .value("INFEASIBLE", Reason::Infeasible)
      .value("UNBOUNDED", Reason::Unbounded)
      .value("NOT_CONVEX", Reason::NotConvex)
      .value("NOT_UNIQUE", Reason::NotUnique)
      .value("STEP_UNDERFLOW", Reason::StepUnderflow)
      .value("EVENT_MISSED", Reason::EventMissed);
}

}  // namespace

void bind_reports(py::module_& module) {
  bind_reason(module);
  Class type(module, "Report",
             "How a solve ended, row by row: nothing that did not converge passes for something "
             "that did.\nA row is a sample, or a position in scopes position and causal.");
  add_tensors(type);
  add_numbers(type);
  type.def(
          "count", [](const SolveReport& self, Reason reason) { return self.report.count(reason); },
          py::arg("reason"), "rows that stopped for this reason")
      .def_property_readonly(
          "adjoint",
          [](const SolveReport& self) -> py::object {
            if (!self.adjoint) return py::none();
            const Report report = self.adjoint->get();
            return report.reason.defined() ? py::cast(SolveReport{report}) : py::none();
          },
          "the Report of the adjoint's solve in the latest backward pass; None before, and of "
          "gradients that solve none")
      .def("__str__", [](const SolveReport& self) { return describe(self.report); })
      .def("__repr__",
           [](const SolveReport& self) { return "<deq.Report: " + describe(self.report) + ">"; });
}

}  // namespace deq::python
