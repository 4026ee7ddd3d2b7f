// One process at a time holds a run folder, and cleans up behind one that was killed.
#include "deq/files/folder_lock.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "deq/files/files.h"
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

TEST(FolderLockTest, WhoOnlyLooksTakesNothing) {
  Scratch scratch;
  check_unlocked(scratch.folder());
  EXPECT_TRUE(scratch.names().empty());
  {
    FolderLock lock(scratch.folder());
    const std::string message = error_of([&] { check_unlocked(scratch.folder()); });
    EXPECT_EQ(message, error_of([&] { FolderLock second(scratch.folder()); }));
  }
  check_unlocked(scratch.folder());
  EXPECT_NO_THROW(FolderLock lock(scratch.folder()));
  check_unlocked(scratch / "missing");
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
  const Names others = {"-1.tmp",   "1-1.tmp",   "a.tmp",    "b.1.tmp",
                        "c.1-.tmp", "d.1-x.tmp", "e.x-1.tmp"};
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

}  // namespace
}  // namespace deq
