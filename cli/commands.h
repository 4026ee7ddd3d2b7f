// The commands of `deq`. Each stands in its own file and gets the arguments after its name.
#pragma once

namespace deq::cli {

int info(int argc, char** argv);

}  // namespace deq::cli
