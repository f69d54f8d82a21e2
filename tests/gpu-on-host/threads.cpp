// The threads of a kernel, one after the other. Each runs until it waits for others or ends.
#include "gpu.h"
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

const unsigned MOST_THREADS = 1024, WARP = 32;

extern "C" {
Size threadIdx, blockIdx, blockDim, gridDim;
unsigned long long gpu_lanes[MOST_THREADS];
}

namespace {
enum class Waits { Nothing, Block, Warp };

// A stack on which threads run. One that never waits leaves it to the next thread.
struct Fiber {
    static constexpr size_t STACK = 128 << 10, GUARD = 4096;
    char *stack;
    ucontext_t begin;
    jmp_buf at;
    bool begun = false;
    Waits waits = Waits::Nothing;
    // Those of its warp that it waits for.
    unsigned lanes = 0;
    unsigned thread = 0;
    Fiber() {
        const int what = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void *mapped = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, what, -1, 0);
        if (mapped == MAP_FAILED) abort();
        stack = (char *)mapped;
        mprotect(stack, GUARD, PROT_NONE);
    }
};

std::vector<std::unique_ptr<Fiber>> fibers;
// Those on which no thread runs, and those that wait.
std::vector<Fiber *> idle, active;
Fiber *current;
jmp_buf scheduler;
const Kernel *kernel;
void **arguments;
unsigned threads, started;
// Whether the last block begins, and the last thread of each. What waits too seldom may pass in one
// of both orders.
const bool backwards = getenv("GPU_ON_HOST_BACKWARDS");

sigjmp_buf given_up;
// Whether this thread of the host does what a GPU would.
thread_local volatile sig_atomic_t guards = 0;
Result fault;
uint64_t fault_at;

void place(unsigned thread) {
    current->thread = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y,
                 thread / blockDim.x / blockDim.y};
}

void wait(Waits what) {
    const Size own = threadIdx;
    current->waits = what;
    if (_setjmp(current->at) == 0) _longjmp(scheduler, 1);
    threadIdx = own;
}

void run_threads() {
    for (;;) {
        while (started < threads) {
            const unsigned next = started++;
            place(backwards ? threads - 1 - next : next);
            kernel->call(arguments);
        }
        wait(Waits::Nothing);
    }
}

// Runs a fiber until its thread waits, or no thread is left to begin.
void run(Fiber *fiber) {
    current = fiber;
    if (_setjmp(scheduler)) return;
    if (fiber->begun) _longjmp(fiber->at, 1);
    fiber->begun = true;
    getcontext(&fiber->begin);
    fiber->begin.uc_stack.ss_sp = fiber->stack + Fiber::GUARD;
    fiber->begin.uc_stack.ss_size = Fiber::STACK;
    fiber->begin.uc_link = nullptr;
    makecontext(&fiber->begin, run_threads, 0);
    setcontext(&fiber->begin);
}

Fiber *free_fiber() {
    if (idle.empty()) {
        fibers.push_back(std::make_unique<Fiber>());
        return fibers.back().get();
    }
    Fiber *fiber = idle.back();
    idle.pop_back();
    return fiber;
}

// Those that need wait no longer: where all wait for their block, all, and of a warp those whose
// lanes all wait. Threads that have ended are waited for by none.
std::vector<Fiber *> ready() {
    unsigned others[MOST_THREADS / WARP] = {};
    bool block = true;
    for (const Fiber *fiber : active) {
        const unsigned lane = 1u << fiber->thread % WARP;
        if (fiber->waits != Waits::Warp) others[fiber->thread / WARP] |= lane;
        block = block && fiber->waits == Waits::Block;
    }
    std::vector<Fiber *> those;
    for (Fiber *fiber : active) {
        const bool warp = fiber->waits == Waits::Warp;
        const bool goes = warp && !(others[fiber->thread / WARP] & fiber->lanes);
        if (block || goes) those.push_back(fiber);
    }
    return those;
}

// False if threads wait for others that wait for something else.
bool run_block() {
    threads = blockDim.x * blockDim.y * blockDim.z;
    started = 0;
    active.clear();
    while (started < threads) {
        Fiber *fiber = free_fiber();
        run(fiber);
        (fiber->waits == Waits::Nothing ? idle : active).push_back(fiber);
    }
    while (!active.empty()) {
        const auto those = ready();
        if (those.empty()) return false;
        for (Fiber *fiber : those) run(fiber);
        std::vector<Fiber *> left;
        for (Fiber *fiber : active)
            (fiber->waits == Waits::Nothing ? idle : left).push_back(fiber);
        active = left;
    }
    return true;
}

// Threads that stopped half-way never go on.
void forget_fibers() {
    idle.clear();
    for (auto &fiber : fibers) {
        fiber->begun = false;
        fiber->waits = Waits::Nothing;
        idle.push_back(fiber.get());
    }
}

[[noreturn]] void give_up(Result error, uint64_t address) {
    fault = error;
    fault_at = address;
    siglongjmp(given_up, 1);
}

struct sigaction before_us;

void on_signal(int signal, siginfo_t *info, void *context) {
    if (guards) give_up(ILLEGAL_ADDRESS, (uint64_t)info->si_addr);
    if (before_us.sa_flags & SA_SIGINFO) return before_us.sa_sigaction(signal, info, context);
    sigaction(signal, &before_us, nullptr);
}

void listen() {
    struct sigaction ours = {};
    ours.sa_sigaction = on_signal;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &ours, &before_us);
}
}  // namespace

extern "C" {
void __syncthreads() { wait(Waits::Block); }
void __syncwarp(unsigned mask) {
    current->lanes = mask;
    wait(Waits::Warp);
}
[[noreturn]] void gpu_assert(const char *what) {
    fail(ASSERT, "%s is not true", what);
    give_up(ASSERT, 0);
}
}

static std::string thread_in_words() {
    const auto words = [](Size at) {
        return std::to_string(at.x) + "," + std::to_string(at.y) + "," + std::to_string(at.z);
    };
    return kernel ? ", thread " + words(threadIdx) + " of block " + words(blockIdx) : "";
}

Result guarded(const char *name, const std::function<void()> &work) {
    static std::once_flag once;
    std::call_once(once, listen);
    fault = OK;
    if (sigsetjmp(given_up, 1) == 0) {
        guards = 1;
        work();
    }
    guards = 0;
    if (fault) {
        forget_fibers();
        const auto where = fault == ILLEGAL_ADDRESS ? "uses memory " + describe(fault_at) : "stops";
        return fail(fault, "%s%s, %s", name, thread_in_words().c_str(), where.c_str());
    }
    const auto wrong = overwritten();
    if (wrong.empty()) return OK;
    return fail(ILLEGAL_ADDRESS, "%s writes to %s", name, wrong.c_str());
}

Result launch(const Kernel &of, Size grid, Size block, unsigned dynamic, void **given) {
    const auto name = of.name.c_str();
    const uint64_t all = (uint64_t)block.x * block.y * block.z;
    if (all == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 || all > MOST_THREADS)
        return fail(INVALID_VALUE, "%s: a block cannot have %u by %u by %u threads", name, block.x,
                    block.y, block.z);
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        return fail(INVALID_VALUE, "%s: a grid cannot have %u by %u by %u blocks", name, grid.x,
                    grid.y, grid.z);
    if (dynamic > MOST_DYNAMIC)
        return fail(INVALID_VALUE, "%s: %u bytes of shared memory are too many", name, dynamic);
    kernel = &of;
    arguments = given;
    blockDim = block;
    gridDim = grid;
    bool met = true;
    const auto blocks = [&] {
        void *shared = nullptr;
        size_t len = 0;
        of.shared(shared, len);
        const uint64_t count = (uint64_t)grid.x * grid.y * grid.z;
        for (uint64_t n = 0; n < count && met; n++) {
            const uint64_t block = backwards ? count - 1 - n : n, line = block / grid.x;
            blockIdx = {unsigned(block % grid.x), unsigned(line % grid.y), unsigned(line / grid.y)};
            if (len) memset(shared, 0xff, len);
            met = run_block();
        }
    };
    const auto error = guarded(name, blocks);
    kernel = nullptr;
    if (error) return error;
    if (met) return OK;
    forget_fibers();
    return fail(LAUNCH_FAILED, "%s: threads wait at __syncthreads for others at __syncwarp", name);
}
