#include <gtest/gtest.h>
TEST(Info, Runs) { EXPECT_EQ(std::system(DEQ_BINARY " info"), 0); }
