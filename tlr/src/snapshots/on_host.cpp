// Runs the kernels of window.cu on the host, one block after the other.
//
//     on_host KERNEL SUMS < launch > results
//
// The launch is the number of tensors, of blocks, of groups and of bytes of data, the table, and the
// data. The table has offsets into the data in place of addresses. The kernel runs twice: with sums
// that begin as NaN, and with what the first run has left. A is as it was before each. The results are
// the sums of each group after each, and the data as the kernel left them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
// Blocks run one after the other, so what a block's threads share can be static.
#define __shared__ static

static struct {
    unsigned x;
} blockIdx, threadIdx;

static float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void __syncthreads();
static void __threadfence() {}
static unsigned atomicAdd(unsigned *at, unsigned by) {
    const unsigned before = *at;
    *at += by;
    return before;
}

#include "window.cu"

static ucontext_t scheduler, threads[THREADS];
static bool ended[THREADS];
static std::function<void()> kernel;

// A thread waits here until all others have come as far.
static void __syncthreads() { swapcontext(&threads[threadIdx.x], &scheduler); }

static void run_thread() {
    kernel();
    ended[threadIdx.x] = true;
}

static void launch(unsigned blocks, std::function<void()> of_thread) {
    const size_t STACK = 1 << 16;
    static std::vector<char> stacks(THREADS * STACK);
    kernel = of_thread;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        for (unsigned t = 0; t < THREADS; t++) {
            getcontext(&threads[t]);
            threads[t].uc_stack.ss_sp = &stacks[t * STACK];
            threads[t].uc_stack.ss_size = STACK;
            threads[t].uc_link = &scheduler;
            makecontext(&threads[t], run_thread, 0);
            ended[t] = false;
        }
        // Each thread in turn goes on to its next barrier, or to its end.
        for (bool runs = true; runs;) {
            runs = false;
            for (unsigned t = 0; t < THREADS; t++) {
                if (ended[t]) continue;
                threadIdx.x = t;
                swapcontext(&scheduler, &threads[t]);
                runs = runs || !ended[t];
            }
        }
    }
}

static void *named(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    if (!found) {
        fprintf(stderr, "window.cu has no kernel %s\n", name);
        exit(1);
    }
    return found;
}

template <typename T>
static std::vector<T> read(size_t count) {
    std::vector<T> values(count);
    if (fread(values.data(), sizeof(T), count, stdin) != count) exit(2);
    return values;
}

template <typename T>
static void write(const std::vector<T> &values) {
    fwrite(values.data(), sizeof(T), values.size(), stdout);
}

int main(int, char **args) {
    const auto kernel =
        (void (*)(const void *, u64, void *, unsigned *, void *))named(args[1]);
    const u64 n = atoi(args[2]);
    const auto size = read<u64>(4);
    const u64 tensors = size[0], blocks = size[1], groups = size[2], bytes = size[3];
    // A row is a whole number of words.
    const u64 row = sizeof(Tensor) / sizeof(u64);
    auto table = read<u64>(row * tensors + groups + 1);
    const auto given = read<char>(bytes);
    auto data = given;
    for (u64 i = 0; i < tensors; i++) {
        auto &tensor = ((Tensor *)table.data())[i];
        for (u64 *address : {&tensor.before, &tensor.last, &tensor.now, &tensor.gradient}) {
            if (*address) *address += (u64)data.data();
        }
    }
    std::vector<double> of_blocks(n * blocks, NAN), of_groups(n * groups, NAN);
    std::vector<unsigned> ended(groups);
    for (int run = 0; run < 2; run++) {
        std::copy(given.begin(), given.end(), data.begin());
        launch(blocks, [&] {
            kernel(table.data(), tensors, of_blocks.data(), ended.data(), of_groups.data());
        });
        write(of_groups);
    }
    write(data);
}
