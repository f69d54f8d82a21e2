// A GPU's memory in that of the host. Each allocation ends at a page that nobody may touch, or up
// to 15 bytes before. New memory is NaN in each of its numbers, and so is what lies around it.
#include "gpu.h"
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <sys/mman.h>
#include <vector>

namespace {
const size_t PAGE = 4096;
// What is there before an allocation for a write to be noticed. Farther off it is not, up to a
// page.
const size_t BEFORE = 64;
// Fewer than 16 bytes lie between an allocation and the next page: float4 begins where it has to.
const size_t ALIGNED = 16;
// The allocations that stay unusable after they were freed.
const size_t FREED = 256;

struct Allocation {
    char *pages;
    size_t paged;
    char *begin;
    size_t len;
    void *context;
    char *end() const { return begin + len; }
    // A page before and one after are never mapped.
    char *usable() const { return pages + PAGE; }
    char *usable_end() const { return pages + paged - PAGE; }
};

std::map<uint64_t, Allocation> allocations;
std::deque<Allocation> freed;

// Memory of the host that a GPU writes to by itself, by its beginning: NaN at first. What a thread
// copies there arrives when that thread waits for it, and not before.
std::map<char *, size_t> pinned;
struct Copy {
    char *of, *to;
    std::vector<char> bytes;
};
thread_local std::vector<Copy> on_the_way;

size_t up(size_t len, size_t step) { return (len + step - 1) / step * step; }

// NaN in f16, f32 and f64, and another one than an allocation's.
char around(const char *at) { return (uintptr_t)at & 1 ? 0xff : 0xfe; }

// The first byte that was written to. All are as they were afterwards.
const char *changed(char *from, char *to) {
    const char *first = nullptr;
    for (char *at = from; at < to; at++) {
        if (*at != around(at) && !first) first = at;
        *at = around(at);
    }
    return first;
}

std::string place(const Allocation &of, uint64_t address) {
    const auto begin = (uint64_t)of.begin, end = (uint64_t)of.end();
    const auto words = [](uint64_t bytes, const char *where) {
        return std::to_string(bytes) + " bytes " + where + " ";
    };
    const auto where = address < begin  ? words(begin - address, "before")
                       : address >= end ? words(address - end, "behind the end of")
                                        : words(address - begin, "into");
    return where + "an allocation of " + std::to_string(of.len) + " bytes";
}
}  // namespace

bool is_allocated(uint64_t address, size_t len) {
    if (len == 0) return true;
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) return false;
    const auto &of = std::prev(next)->second;
    return address + len <= (uint64_t)of.end() && address + len >= address;
}

void *context_of(uint64_t address) {
    const auto next = allocations.upper_bound(address);
    return next == allocations.begin() ? nullptr : std::prev(next)->second.context;
}

std::string describe(uint64_t address) {
    const auto within = [&](const Allocation &of) {
        return address >= (uint64_t)of.pages && address < (uint64_t)of.pages + of.paged;
    };
    for (const auto &[_, of] : allocations)
        if (within(of)) return place(of, address);
    for (const auto &of : freed)
        if (within(of)) return place(of, address) + ", which is freed";
    return "far from any allocation";
}

std::string overwritten() {
    std::string first;
    for (const auto &[_, of] : allocations) {
        const char *before = changed(of.begin - BEFORE, of.begin);
        const char *behind = changed(of.end(), of.usable_end());
        if (!first.empty() || (!before && !behind)) continue;
        first = place(of, (uint64_t)(before ? before : behind));
    }
    return first;
}

static Result allocate(uint64_t *address, size_t len) {
    count(ALLOCATIONS);
    if (const auto error = in_context()) return error;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    *address = 0;
    if (len == 0) return OK;
    const size_t paged = up(up(len, ALIGNED) + BEFORE, PAGE) + 2 * PAGE;
    void *pages = mmap(nullptr, paged, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return fail(OUT_OF_MEMORY, "no %zu bytes are left", len);
    Allocation of = {(char *)pages, paged, nullptr, len, nullptr};
    cuCtxGetCurrent(&of.context);
    of.begin = of.usable_end() - up(len, ALIGNED);
    if (mprotect(of.usable(), paged - 2 * PAGE, PROT_READ | PROT_WRITE))
        return fail(OUT_OF_MEMORY, "no %zu bytes are left", len);
    for (char *at = of.usable(); at < of.begin; at++) *at = around(at);
    memset(of.begin, 0xff, len);
    for (char *at = of.end(); at < of.usable_end(); at++) *at = around(at);
    *address = (uint64_t)of.begin;
    allocations[*address] = of;
    return OK;
}

static Result release(uint64_t address) {
    count(FREES);
    if (const auto error = in_context()) return error;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (address == 0) return OK;
    const auto found = allocations.find(address);
    if (found == allocations.end()) {
        const auto where = describe(address);
        return fail(INVALID_VALUE, "what is freed begins %s", where.c_str());
    }
    const auto of = found->second;
    const auto wrong = overwritten();
    if (!wrong.empty()) fail(ILLEGAL_ADDRESS, "written to by an unknown one: %s", wrong.c_str());
    allocations.erase(found);
    mprotect(of.pages, of.paged, PROT_NONE);
    madvise(of.pages, of.paged, MADV_DONTNEED);
    freed.push_back(of);
    if (freed.size() > FREED) {
        munmap(freed.front().pages, freed.front().paged);
        freed.pop_front();
    }
    return wrong.empty() ? OK : ILLEGAL_ADDRESS;
}

static Result check(const char *what, uint64_t address, size_t len) {
    if (const auto error = in_context()) return error;
    if (is_allocated(address, len)) return OK;
    const auto where = describe(address);
    return fail(INVALID_VALUE, "%s %zu bytes from %s on", what, len, where.c_str());
}

static Result to_device(uint64_t to, const void *from, size_t len) {
    count(COPIES_TO);
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (const auto error = check("copies to", to, len)) return error;
    if (len) memcpy((void *)to, from, len);
    return OK;
}

static Result to_host_now(void *to, uint64_t from, size_t len) {
    count(COPIES_FROM);
    if (const auto error = check("copies", from, len)) return error;
    if (len) memcpy(to, (const void *)from, len);
    return OK;
}

static Result to_host(void *to, uint64_t from, size_t len) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    return to_host_now(to, from, len);
}

// The pinned memory that `len` bytes from `to` on belong to, if they do.
static char *pinned_at(void *to, size_t len) {
    auto next = pinned.upper_bound((char *)to);
    if (next == pinned.begin()) return nullptr;
    const auto &[begin, size] = *std::prev(next);
    return (char *)to + len <= begin + size ? begin : nullptr;
}

void deliver() {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    for (const auto &copy : on_the_way) memcpy(copy.to, copy.bytes.data(), copy.bytes.size());
    on_the_way.clear();
}

static Result within_device(uint64_t to, uint64_t from, size_t len) {
    count(COPIES_WITHIN);
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (const auto error = check("copies", from, len)) return error;
    if (const auto error = check("copies to", to, len)) return error;
    if (len) memmove((void *)to, (const void *)from, len);
    return OK;
}

static Result fill(uint64_t at, unsigned char byte, size_t len) {
    count(FILLS);
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (const auto error = check("fills", at, len)) return error;
    if (len) memset((void *)at, byte, len);
    return OK;
}

extern "C" {
Result cuMemAlloc_v2(uint64_t *address, size_t len) {
    if (len == 0) return fail(INVALID_VALUE, "allocates nothing");
    if (const auto error = nothing_waits("allocates")) return error;
    return allocate(address, len);
}
Result cuMemAllocAsync(uint64_t *address, size_t len, void *stream) {
    if (const auto error = in_order(stream)) return error;
    return allocate(address, len);
}
Result cuMemFree_v2(uint64_t address) {
    if (const auto error = nothing_waits("frees")) return error;
    return release(address);
}
Result cuMemFreeAsync(uint64_t address, void *stream) {
    if (const auto error = in_order(stream)) return error;
    return release(address);
}
Result cuMemHostAlloc(void **memory, size_t len, unsigned) {
    if (const auto error = in_context()) return error;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    *memory = malloc(len);
    if (!*memory) return fail(OUT_OF_MEMORY, "no %zu bytes are left on the host", len);
    memset(*memory, 0xff, len);
    pinned[(char *)*memory] = len;
    return OK;
}
Result cuMemFreeHost(void *memory) {
    if (const auto error = in_context()) return error;
    if (const auto error = nothing_waits("frees memory of the host")) return error;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    for (const auto &copy : on_the_way)
        if (copy.of == memory) return fail(INVALID_VALUE, "frees what is still being written to");
    if (!pinned.erase((char *)memory)) return fail(INVALID_VALUE, "frees what it has not");
    free(memory);
    return OK;
}
Result cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t len) {
    return to_device(to, from, len);
}
Result cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t len, void *stream) {
    if (const auto error = in_order(stream)) return error;
    return to_device(to, from, len);
}
Result cuMemcpyDtoH_v2(void *to, uint64_t from, size_t len) { return to_host(to, from, len); }
Result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t len, void *stream) {
    if (const auto error = in_order(stream)) return error;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    char *of = pinned_at(to, len);
    if (!of) return to_host_now(to, from, len);
    std::vector<char> bytes(len);
    const auto error = to_host_now(bytes.data(), from, len);
    if (!error) on_the_way.push_back({of, (char *)to, bytes});
    return error;
}
Result cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t len) {
    return within_device(to, from, len);
}
Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t len, void *stream) {
    if (const auto error = in_order(stream)) return error;
    return within_device(to, from, len);
}
Result cuMemsetD8_v2(uint64_t at, unsigned char byte, size_t len) { return fill(at, byte, len); }
Result cuMemsetD8Async(uint64_t at, unsigned char byte, size_t len, void *stream) {
    if (const auto error = in_order(stream)) return error;
    return fill(at, byte, len);
}
Result cuMemGetInfo_v2(size_t *free, size_t *total) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    *free = *total = (size_t)16 << 30;
    for (const auto &[_, of] : allocations) *free -= of.len;
    return OK;
}
}
