// Options of runs that take a second.
#pragma once

#include <string>

namespace deq::testing {

inline const std::string kSmallSequences =
    " --cell-width 16 --cell-heads 2 --cell-inner 24 --cell-dropout-hidden 0.1 "
    "--input-dropout 0.1"
    " --batch 4 --max-steps 8 --gradient-max-steps 8 --fewer-steps 2 --steps 40 --eval-every 9"
    " --save-every 4 --log-every 1 --pretrain-steps 3 --jacobian-weight 0.1 --threads 1";

/// How a text is cut; sequences are not.
inline const std::string kCut = " --length 12 --history 12 --eval-lanes 4 --eval-length 12";
inline const std::string kSmall = kSmallSequences + kCut;

/// Without what makes training random, for any depth; --steps is the caller's.
inline const std::string kPlainSequences =
    " --cell-width 16 --cell-heads 2 --cell-inner 24 --batch 4 --eval-every 5 --log-every 1 "
    "--threads 1";
inline const std::string kPlain = kPlainSequences + kCut;

inline constexpr const char* kCopy =
    " --task copy-memory --task-delay 5 --task-train-sequences 50 --task-valid-sequences 9 "
    "--task-test-sequences 7";

}  // namespace deq::testing
