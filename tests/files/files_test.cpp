#include "deq/files/files.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <map>

#include "deq/files/safetensors.h"
#include "tests/base/child.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::in_child;
using testing::Scratch;
using testing::slurp;
using testing::spill;
using testing::status_of;

using Names = std::vector<std::string>;

TEST(ReadFile, ReadsAllBytes) {
  Scratch scratch;
  for (const size_t size : {0, 1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20}) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = char(i * 31 + i / 256);
    spill(scratch / "x", bytes);
    EXPECT_EQ(read_file(scratch / "x", size), bytes) << size;
  }
}

TEST(ReadFile, ReadsWhatHasNoSize) {
  EXPECT_FALSE(read_file("/proc/self/status", 1 << 20).empty());
}

TEST(ReadFile, SaysWhyNot) {
  Scratch scratch;
  EXPECT_EQ(error_of([&] { read_file(scratch / "no", 10); }),
            fmt::format("cannot read '{}': No such file or directory", (scratch / "no").string()));
  EXPECT_SAYS(error_of([&] { read_file(scratch.folder(), 10); }),
              "it is a folder; expected a file");
  spill(scratch / "x", "0123456789A");
  EXPECT_SAYS(error_of([&] { read_file(scratch / "x", 10); }),
              "it has 11 bytes or more; expected at most 10");
  EXPECT_SAYS(error_of([&] { read_file("/proc/self/status", 10); }), "expected at most 10");
  EXPECT_SAYS(error_of([&] { read_file("a\nb", 10); }), "cannot read 'a\\nb'");
  if (::geteuid() != 0) {
    ::chmod((scratch / "x").c_str(), 0);
    EXPECT_SAYS(error_of([&] { read_file(scratch / "x", 100); }), "Permission denied");
  }
}

TEST(WriteFile, ReplacesTheFileAndLeavesNothingElse) {
  Scratch scratch;
  write_file(scratch / "x", "one");
  EXPECT_EQ(slurp(scratch / "x"), "one");
  write_file(scratch / "x", std::string("t\0wo", 4));
  EXPECT_EQ(slurp(scratch / "x"), std::string("t\0wo", 4));
  EXPECT_EQ(scratch.names(), Names{"x"});
}

TEST(WriteFile, WritesIntoTheWorkingFolder) {
  Scratch scratch;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(scratch.folder());
  write_file("x", "one");
  std::filesystem::current_path(before);
  EXPECT_EQ(slurp(scratch / "x"), "one");
}

TEST(WriteFile, KeepsModeAndLink) {
  Scratch scratch;
  spill(scratch / "real", "old");
  ::chmod((scratch / "real").c_str(), 0640);
  std::filesystem::create_symlink("real", scratch / "link");
  write_file(scratch / "link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(scratch / "link"));
  EXPECT_EQ(slurp(scratch / "real"), "new");
  struct stat status {};
  ASSERT_EQ(::stat((scratch / "real").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
}

TEST(WriteFile, SaysWhyNot) {
  Scratch scratch;
  EXPECT_EQ(
      error_of([&] { write_file(scratch / "no" / "x", "y"); }),
      fmt::format("cannot write '{}': No such file or directory", (scratch / "no" / "x").string()));
  EXPECT_SAYS(error_of([&] { write_file(scratch.folder(), "y"); }), "Is a directory");
  EXPECT_SAYS(error_of([&] { write_file("/dev/null", "y"); }),
              "cannot write '/dev/null': it is a device");
  EXPECT_SAYS(error_of([&] { write_file(scratch / std::string(300, 'n'), "y"); }),
              "File name too long");
  EXPECT_TRUE(scratch.names().empty());
}

TEST(FileWriter, WithoutCommitNothingHappened) {
  Scratch scratch;
  spill(scratch / "x", "old");
  {
    FileWriter writer(scratch / "x");
    writer.write("new");
    EXPECT_EQ(scratch.names().size(), 2u);
    EXPECT_EQ(slurp(scratch / "x"), "old");
  }
  EXPECT_EQ(scratch.names(), Names{"x"});
  EXPECT_EQ(slurp(scratch / "x"), "old");
}

TEST(FileWriter, OverwritesInPlace) {
  Scratch scratch;
  FileWriter writer(scratch / "x");
  writer.write("0123");
  writer.write("456789");
  writer.overwrite(2, "abc");
  writer.write("!");
  writer.commit();
  EXPECT_EQ(slurp(scratch / "x"), "01abc56789!");
  EXPECT_SAYS(error_of([&] { writer.commit(); }), "already written");
}

TEST(FileWriter, TwoAtOnceDoNotMix) {
  Scratch scratch;
  FileWriter first(scratch / "x"), second(scratch / "x");
  first.write("first");
  second.write("second");
  second.commit();
  first.commit();
  EXPECT_EQ(slurp(scratch / "x"), "first");
  EXPECT_EQ(scratch.names(), Names{"x"});
}

/// Lets no file of this process grow beyond `bytes`, as long as it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int);
};

TEST(FullDisk, AFileThatMayNotGrowLeavesTheOldOne) {
  Scratch scratch;
  spill(scratch / "x", "old");
  save_tensors(scratch / "t", {{"w", at::ones({4})}});
  const std::string old = slurp(scratch / "t");
  {
    FileSizeLimit limit(10000);
    EXPECT_EQ(error_of([&] { write_file(scratch / "x", std::string(20000, 'n')); }),
              fmt::format("cannot write '{}': File too large", (scratch / "x").string()));
    EXPECT_SAYS(error_of([&] {
                  save_tensors(scratch / "t", {{"w", at::ones({4000})}});
                }),
                "File too large");
  }
  EXPECT_EQ(slurp(scratch / "x"), "old");
  EXPECT_EQ(slurp(scratch / "t"), old);
  EXPECT_EQ(scratch.names(), (Names{"t", "x"}));
}

/// Mounts a file system of `size` on `folder`, seen by this process alone and gone with it.
bool mount_small(const std::filesystem::path& folder, const char* size) {
  const int spaces = ::geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
  return ::unshare(spaces) == 0 &&
         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", folder.c_str(), "tmpfs", 0, size) == 0;
}

TEST(FullDisk, NoSpaceLeavesTheOldFile) {
  Scratch scratch;
  const at::Tensor small = at::ones({4}), large = at::ones({100000});
  const int status = status_of(in_child([&] {
    if (!mount_small(scratch.folder(), "size=64k")) return 77;
    save_tensors(scratch / "t", {{"w", small}});
    const std::string old = slurp(scratch / "t");
    const std::string message = error_of([&] { save_tensors(scratch / "t", {{"w", large}}); });
    EXPECT_EQ(message,
              fmt::format("cannot write '{}': No space left on device", (scratch / "t").string()));
    EXPECT_EQ(slurp(scratch / "t"), old);
    EXPECT_EQ(scratch.names(), Names{"t"});
    return ::testing::Test::HasFailure() ? 1 : 0;
  }));
  if (status == 77) GTEST_SKIP() << "may not mount a file system";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace deq
