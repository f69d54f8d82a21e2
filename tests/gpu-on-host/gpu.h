// What the files of the stand-in for a GPU share.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

// The driver's error codes.
enum Result {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    ASSERT = 710,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
};

// Writes a line to stderr that says what is wrong, and gives back the error.
__attribute__((format(printf, 2, 3))) Result fail(Result error, const char *format, ...);

// One thing at a time happens on this GPU.
extern std::mutex one_at_a_time;

// What a thread of the host has asked a GPU for. A test reads it by `gpu_on_host_count`.
enum Counted { LAUNCHES, COPIES_TO, COPIES_FROM, COPIES_WITHIN, FILLS, ALLOCATIONS, FREES, WAITS };
void count(Counted what);

// ---- driver.cpp

// Whether the calling thread has a context, without which a GPU does nothing for it.
Result in_context();
extern "C" Result cuCtxGetCurrent(void **context);
// Whether a stream may be given work: that behind an operation of NCCL is not stood in for.
Result in_order(void *stream);
// Whether a call may wait for all that is on a GPU.
Result nothing_waits(const char *what);

// ---- memory.cpp

// Whether `len` bytes from `address` on belong to one allocation.
bool is_allocated(uint64_t address, size_t len);
// Where an address that may not be used lies, in words.
std::string describe(uint64_t address);
// The context in which it was allocated.
void *context_of(uint64_t address);
// The first allocation beside which something was written, in words; empty if there is none.
std::string overwritten();

// Ends this thread's copies to the host that are still under way.
void deliver();

// ---- threads.cpp

struct Size {
    unsigned x, y, z;
};
struct Kernel {
    std::string name;
    // Calls the kernel, for one thread.
    void (*call)(void **arguments);
    // The module's shared memory, as of the calling thread.
    std::function<void(void *&begin, size_t &len)> shared;
};
// The bytes of shared memory that a launch may ask for.
const unsigned MOST_DYNAMIC = 48 << 10;

Result launch(const Kernel &kernel, Size grid, Size block, unsigned dynamic, void **arguments);

// Does what a GPU would do. An address that may not be used is reported with `name`, and so is what
// was written beside an allocation.
Result guarded(const char *name, const std::function<void()> &work);

// ---- nccl.cpp

// Whether an operation of NCCL is on a stream. It is moved on before.
bool is_busy(void *stream);
// Whether one is anywhere on this thread's GPU. It may wait for another rank.
bool waits_for_others();

// ---- compile.cpp

// Makes a library of a module's text. Empty if that fails, with the compiler's messages in `log`.
std::string library(const std::string &text, std::string &log, const std::string &options = "");
// Replaces includes and macros by what they stand for. Empty if that fails.
std::string preprocessed(const std::string &source, const std::string &options, std::string &log);
