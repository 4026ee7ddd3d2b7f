// deq info: what this build runs on, and a warning where that is slow.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/commands.h"
#include "cli/parse.h"
#include "deq/base/threads.h"
#include "deq/distributed/rendezvous.h"
#include "deq/ops/rows_simd.h"

namespace deq::cli {
namespace {

struct Blas {
  std::string kind = "";     ///< "OpenBLAS (OpenMP)", "MKL", "reference", ...
  std::string library = "";  ///< the file that the loader chose
  std::string config = "";   ///< what OpenBLAS says of itself
  std::string warning = "";  ///< empty where nothing is wrong
};

template <class Function>
Function* loaded_function(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

/// The file that a loaded function comes from, its links followed.
std::string file_of(void* function) {
  Dl_info where;
  if (!function || !dladdr(function, &where) || !where.dli_fname) return "";
  std::error_code failed;
  const auto file = std::filesystem::canonical(where.dli_fname, failed);
  return failed ? where.dli_fname : file.string();
}

constexpr const char* kSlowThreads =
    "OpenBLAS was built with its own threads, which fight LibTorch's; install libopenblas0-openmp";
constexpr const char* kReference =
    "the reference BLAS is many times slower than OpenBLAS; install libopenblas0-openmp";

/// Asks the loader, since the package that is installed need not be the one that it chose.
Blas find_blas() {
  void* product = dlsym(RTLD_DEFAULT, "sgemm_");
  Blas blas{.kind = "unknown", .library = file_of(product)};
  if (auto* parallel = loaded_function<int()>("openblas_get_parallel")) {
    // Debian's libblas.so.3 only forwards to OpenBLAS; the library that does the work is this one.
    blas.library = file_of(reinterpret_cast<void*>(parallel));
    if (auto* config = loaded_function<char*()>("openblas_get_config")) blas.config = config();
    const int threads = parallel();  // 0: sequential, 1: pthread, 2: OpenMP
    blas.kind = threads == 2   ? "OpenBLAS (OpenMP)"
                : threads == 1 ? "OpenBLAS (pthread)"
                               : "OpenBLAS (sequential)";
    if (threads != 2) blas.warning = kSlowThreads;
  }
  // LibTorch names libopenblas itself, but its products go to whichever library has sgemm_.
  const std::string products = file_of(product);
  if (products.find("/blas/libblas") != std::string::npos) {
    blas = {.kind = "reference", .library = products, .warning = kReference};
  } else if (blas.kind == "unknown" && at::hasMKL()) {
    blas.kind = "MKL";
  }
  while (!blas.config.empty() && blas.config.back() == ' ') blas.config.pop_back();
  return blas;
}

/// "AVX2" out of LibTorch's description of itself.
std::string cpu_capability() {
  const std::string text = at::show_config(), label = "CPU capability usage: ";
  const size_t start = text.find(label);
  if (start == std::string::npos) return "unknown";
  return text.substr(start + label.size(), text.find('\n', start) - start - label.size());
}

}  // namespace

int info(int argc, char** argv) {
  CLI::App app{"Prints what this build runs on.", "deq info"};
  bool json = false;
  app.add_flag("--json", json, "print one JSON object");
  if (const auto done = parse(app, argc, argv)) return *done;

  const int most = at::get_num_threads();
  const FreeThreads scope;  // as every solve has one
  const Blas blas = find_blas();
  const bool cuda = torch::cuda::is_available();
  const size_t devices = cuda ? torch::cuda::device_count() : 0;
  if (json) {
    const nlohmann::ordered_json out = {
        {"deq", DEQ_VERSION},
        {"libtorch", TORCH_VERSION},
        {"blas",
         {{"kind", blas.kind},
          {"library", blas.library},
          {"config", blas.config},
          {"warning", blas.warning}}},
        {"simd", {{"libtorch", cpu_capability()}, {"deq", ops::simd_target()}}},
        {"threads", most},
        {"threads_now", at::get_num_threads()},
        {"cores", usable_cores()},
        {"free_cores", free_cores()},
        {"cuda_devices", devices},
        {"several_processes", can_join()},
        {"python", DEQ_PYTHON_SAYS},
    };
    fmt::print("{}\n", out.dump(2));
    return 0;
  }
  fmt::print("deq       {}\n", DEQ_VERSION);
  fmt::print("LibTorch  {}\n", TORCH_VERSION);
  fmt::print("BLAS      {}, {}\n", blas.kind, blas.library.empty() ? "no file" : blas.library);
  fmt::print("SIMD      {} in LibTorch, {} in deq's kernels\n", cpu_capability(),
             ops::simd_target());
  fmt::print("threads   {} of {} cores at most; {} now, since others leave {:.1f} cores free\n",
             most, usable_cores(), at::get_num_threads(), free_cores());
  fmt::print("CUDA      {}\n", cuda ? fmt::format("{} device(s)", devices) : "not available");
  fmt::print("processes {}\n",
             can_join() ? "several, through c10d and Gloo" : fmt::format("one: {}", why_alone()));
  fmt::print("Python    {}\n", DEQ_PYTHON_SAYS);
  if (!blas.warning.empty()) fmt::print("warning: {}\n", blas.warning);
  return 0;
}

}  // namespace deq::cli
