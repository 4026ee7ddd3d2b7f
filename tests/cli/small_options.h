// Options of runs that take a second.
#pragma once

namespace deq::testing {

inline constexpr const char* kSmall =
    " --cell-width 16 --cell-heads 2 --cell-inner 24 --cell-dropout-hidden 0.1 "
    "--input-dropout 0.1"
    " --batch 4 --length 12 --history 12 --max-steps 8 --gradient-max-steps 8 --fewer-steps 2 "
    "--steps 40 --eval-every 9"
    " --save-every 4 --log-every 1 --eval-lanes 4 --eval-length 12 --pretrain-steps 3 "
    "--jacobian-weight 0.1 --threads 1";

/// Without what makes training random, for any depth; --steps is the caller's.
inline constexpr const char* kPlain =
    " --cell-width 16 --cell-heads 2 --cell-inner 24 --batch 4 --length 12 --history 12 "
    "--eval-every 5 --log-every 1 --eval-lanes 4 --eval-length 12 --threads 1";

inline constexpr const char* kCopy =
    " --task copy-memory --task-delay 5 --task-train-sequences 50 --task-valid-sequences 9 "
    "--task-test-sequences 7";

}  // namespace deq::testing
