#include "deq/base/files.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <map>

#include "deq/base/printable.h"
#include "deq/base/safetensors.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::Scratch;
using testing::slurp;
using testing::spill;

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

/// Runs `action` in a child process; its return value is the exit status.
template <class Action>
pid_t in_child(Action&& action) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(action());
  return child;
}

int status_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
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

TEST(FolderLockTest, ASecondProcessIsToldWhoHoldsIt) {
  Scratch scratch;
  FolderLock lock(scratch.folder());
  const std::string expected =
      fmt::format("run folder '{}' is in use by process {}", scratch.folder().string(), ::getpid());
  EXPECT_EQ(status_of(in_child([&] {
              try {
                FolderLock second(scratch.folder());
              } catch (const Error& error) {
                return error.what() == expected ? 7 : 8;
              }
              return 0;
            })),
            7);
  EXPECT_EQ(error_of([&] { FolderLock second(scratch.folder()); }), expected);
}

TEST(FolderLockTest, IsReleasedAtDestructionAndByAKill) {
  Scratch scratch;
  { FolderLock lock(scratch.folder()); }
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = in_child([&] {
    FolderLock lock(scratch.folder());
    if (::write(ready[1], "x", 1) != 1) return 1;
    for (;;) ::pause();
    return 0;
  });
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_SAYS(error_of([&] { FolderLock lock(scratch.folder()); }),
              fmt::format("process {}", child));
  ::kill(child, SIGKILL);
  EXPECT_EQ(status_of(child), -1);
  EXPECT_NO_THROW(FolderLock lock(scratch.folder()));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(FolderLockTest, Moves) {
  Scratch scratch;
  FolderLock first(scratch.folder());
  FolderLock second(std::move(first));
  EXPECT_SAYS(error_of([&] { FolderLock lock(scratch.folder()); }), "in use");
  { FolderLock third = std::move(second); }
  EXPECT_NO_THROW(FolderLock lock(scratch.folder()));
}

TEST(FolderLockTest, RemovesTheTemporariesOfAKilledWriter) {
  Scratch scratch;
  const pid_t child = in_child([&] {
    FileWriter writer(scratch / "last.safetensors");
    writer.write("half");
    ::kill(::getpid(), SIGKILL);
    return 0;
  });
  status_of(child);
  ASSERT_EQ(scratch.names().size(), 1u);
  const Names others = {"-1.tmp", "1-1.tmp", "a.tmp", "b.1.tmp", "c.1-.tmp", "d.1-x.tmp"};
  for (const std::string& name : others) spill(scratch / name, "mine");
  FolderLock lock(scratch.folder());
  Names expected = others;
  expected.push_back("lock");
  EXPECT_EQ(scratch.names(), expected);
}

TEST(FolderLockTest, SaysWhyNot) {
  Scratch scratch;
  EXPECT_EQ(error_of([&] { FolderLock lock(scratch / "no"); }),
            fmt::format("cannot lock run folder '{}': No such file or directory",
                        (scratch / "no").string()));
}

TEST(Sha256Test, KnownDigests) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Scratch scratch;
  const std::string million(1000000, 'a');
  spill(scratch / "x", million + million);
  EXPECT_EQ(sha256_hex(million),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(sha256_hex_of_file(scratch / "x"), sha256_hex(million + million));
  Sha256 pieces;
  pieces.update("a");
  pieces.update("");
  pieces.update("bc");
  EXPECT_EQ(pieces.hex(), sha256_hex("abc"));
}

TEST(Printable, IsOneShortLineOfUtf8) {
  EXPECT_EQ(printable("plain gr\u00fc\u00df"), "plain gr\u00fc\u00df");
  EXPECT_EQ(printable("a\n\x1b[1m\"b\""), "a\\n\\u001b[1m\\\"b\\\"");
  EXPECT_EQ(printable("a\xff z"), "a\ufffd z");
  EXPECT_EQ(printable(std::string(100, 'x'), 10), "xxxxxxxxxx...");
  EXPECT_EQ(printable("123\u00fc456", 4), "123...");  // not half of a letter
  EXPECT_EQ(printable(""), "");
}

}  // namespace
}  // namespace deq
