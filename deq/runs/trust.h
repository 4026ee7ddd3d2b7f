// When an answer is trusted: a threshold on its residual that the validation split chose, kept with
// the run in trust.json.
#pragma once

#include <map>
#include <optional>

#include "deq/runs/run.h"
#include "deq/train/answers.h"

namespace deq {

/// An answer is trusted if its solve converged and its residual is at most the threshold.
struct Trust {
  std::optional<double> threshold;  ///< none: nothing is trusted
  std::string split = "valid";      ///< whose problems chose it
  int64_t right_within = 0;         ///< of these, right answers that are trusted,
  int64_t wrong_within = 0;         ///< wrong ones that are,
  int64_t right_beyond = 0;         ///< right ones that are not,
  int64_t wrong_beyond = 0;         ///< and wrong ones that are not
  std::vector<int64_t> smallest;    ///< extent of a training problem, by dimension
  std::vector<int64_t> largest;
  std::string weights;                          ///< sum of those that were judged
  std::map<std::string, std::string> settings;  ///< how they were solved

  bool allows(const Answered& found) const {
    return threshold && found.converged && found.residual <= *threshold;
  }
  /// Whether training problems were as small, and as large.
  bool was_trained_on(at::IntArrayRef extent) const;
};

/// The largest threshold such that of the problems that converged within it 99.9% are right: all of
/// them where they are fewer than 1,000. It ends at the next residual with a wrong answer; where
/// there is none, at the tolerance of the solve, since what did not converge is not trusted
/// whatever its answer. None where fewer than 20 problems would be within it, and so where wrong
/// answers have residuals as small as any.
Trust choose_trust(const std::vector<Judged>& judged, const StopRule& stop);

/// A run's trust, and where it is from.
struct KnownTrust {
  Trust trust;
  bool chosen = false;    ///< now, by judging the validation split
  int64_t forgotten = 0;  ///< that stood there and were of other weights
  std::string unread;     ///< what stood there and is no trust, if that was so
  std::string not_kept;   ///< why it could not be written; empty: it was, or stands there
};

/// From trust.json, where that is of these weights and settings; or else chosen on the first 2,000
/// problems of the validation split, of `data` where it is given, and written there beside those of
/// other settings and of data of other contents; a file that is no list of them is replaced.
/// `progress` hears the share done, 0 before the first.
KnownTrust trust_of(const TrainedModel& run, const AnswerOptions& options, const std::string& data,
                    const std::function<void(double)>& progress = {});

}  // namespace deq
