// The commands of `deq`. Each stands in its own file and gets the arguments after its name.
#pragma once

namespace deq::cli {

int answer(int argc, char** argv);
int bench(int argc, char** argv);
int data(int argc, char** argv);
int eval(int argc, char** argv);
int fill(int argc, char** argv);
int forecast(int argc, char** argv);
int generate(int argc, char** argv);
int import_weights(int argc, char** argv);
int info(int argc, char** argv);
int measure(int argc, char** argv);
int report(int argc, char** argv);
int sweep(int argc, char** argv);
int train(int argc, char** argv);

}  // namespace deq::cli
