// The driver's interface but for memory: four devices, whose streams do everything at once. Only
// NCCL's operations take their time.
#include "gpu.h"
#include <cstdarg>
#include <cstdio>
#include <dlfcn.h>
#include <link.h>
#include <map>
#include <memory>

std::mutex one_at_a_time;

Result fail(Result error, const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("GPU on the host: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    return error;
}

static thread_local void *of_thread;
static thread_local uint64_t counts[WAITS + 1];

void count(Counted what) { counts[what]++; }

Result in_order(void *stream) {
    if (!is_busy(stream)) return OK;
    return fail(NOT_SUPPORTED, "work behind an operation of NCCL, on its stream");
}

Result nothing_waits(const char *what) {
    if (!waits_for_others()) return OK;
    return fail(NOT_SUPPORTED, "%s, where an operation of NCCL may wait for another rank", what);
}

Result in_context() {
    return of_thread ? OK : fail(INVALID_CONTEXT, "this thread is bound to no device");
}

namespace {
const int DEVICES = 4;

struct Module {
    void *handle;
    std::map<std::string, std::unique_ptr<Kernel>> kernels;
};

// By their text. None is ever unloaded: the next device loads the same ones.
std::map<std::string, std::unique_ptr<Module>> modules;

// The `thread_local` variables of a library, as of this thread.
void thread_locals(void *handle, void *&begin, size_t &len) {
    link_map *map = nullptr;
    ((void (*)())dlsym(handle, "gpu_touch"))();
    if (dlinfo(handle, RTLD_DI_TLS_DATA, &begin) || !begin) return;
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map)) return;
    struct Search {
        ElfW(Addr) base;
        size_t len;
    } search = {map->l_addr, 0};
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *data) {
            auto &search = *(Search *)data;
            if (info->dlpi_addr != search.base) return 0;
            for (int i = 0; i < info->dlpi_phnum; i++)
                if (info->dlpi_phdr[i].p_type == PT_TLS) search.len = info->dlpi_phdr[i].p_memsz;
            return 1;
        },
        &search);
    len = search.len;
}

Result load(Module **loaded, const std::string &text) {
    if (const auto error = in_context()) return error;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    auto &module = modules[text];
    if (!module) {
        std::string log;
        const auto path = library(text, log);
        if (path.empty()) return fail(INVALID_IMAGE, "a module is not C++: %s", log.c_str());
        void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!handle) return fail(INVALID_IMAGE, "%s", dlerror());
        module = std::make_unique<Module>(Module{handle, {}});
    }
    *loaded = module.get();
    return OK;
}
}  // namespace

extern "C" {
uint64_t gpu_on_host_count(Counted what) { return counts[what]; }

Result cuInit(unsigned) { return OK; }
Result cuDriverGetVersion(int *version) {
    *version = 13000;
    return OK;
}
Result cuDeviceGetCount(int *count) {
    *count = DEVICES;
    return OK;
}
Result cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < DEVICES ? OK : INVALID_DEVICE;
}
Result cuDeviceGetName(char *name, int len, int) {
    snprintf(name, len, "the host in place of a GPU");
    return OK;
}
Result cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = (size_t)16 << 30;
    return OK;
}
Result cuDeviceGetAttribute(int *value, int attribute, int) {
    static const std::map<int, int> KNOWN = {
        {1, 1024},  // threads of a block
        {8, MOST_DYNAMIC}, {10, 32},  // shared memory of a block, threads of a warp
        {16, 1},           // multiprocessors
        {75, 9}, {76, 0},  // the compute capability
        {115, 1},          // memory in pools, without which cudarc takes no stream
    };
    const auto found = KNOWN.find(attribute);
    if (found == KNOWN.end()) return fail(NOT_SUPPORTED, "attribute %d is not known", attribute);
    *value = found->second;
    return OK;
}

Result cuDevicePrimaryCtxRetain(void **context, int device) {
    static int contexts[DEVICES];
    *context = &contexts[device];
    return OK;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxSetCurrent(void *context) {
    of_thread = context;
    return OK;
}
Result cuCtxGetCurrent(void **context) {
    *context = of_thread;
    return OK;
}
Result cuCtxSynchronize() {
    count(WAITS);
    if (const auto error = nothing_waits("waits for the whole GPU")) return error;
    deliver();
    return OK;
}

Result cuStreamCreate(void **stream, unsigned) {
    *stream = new char;
    return OK;
}
Result cuStreamDestroy_v2(char *stream) {
    if (const auto error = in_order(stream)) return error;
    delete stream;
    return OK;
}
Result cuStreamSynchronize(void *stream) {
    count(WAITS);
    if (const auto error = in_order(stream)) return error;
    deliver();
    return OK;
}
Result cuStreamQuery(void *stream) { return is_busy(stream) ? NOT_READY : OK; }
Result cuStreamWaitEvent(void *, void *, unsigned) { return OK; }
Result cuEventCreate(void **event, unsigned) { return cuStreamCreate(event, 0); }
Result cuEventDestroy_v2(char *event) { return cuStreamDestroy_v2(event); }
Result cuEventRecord(void *, void *) { return OK; }

Result cuModuleLoadData(Module **module, const char *text) { return load(module, text); }
Result cuModuleUnload(void *) { return OK; }
Result cuModuleGetFunction(Kernel **found, Module *module, const char *name) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    auto &kernel = module->kernels[name];
    if (!kernel) {
        void *call = dlsym(module->handle, (std::string("gpu_call_") + name).c_str());
        if (!call) return fail(NOT_FOUND, "there is no kernel %s", name);
        const auto shared = [handle = module->handle](void *&begin, size_t &len) {
            thread_locals(handle, begin, len);
        };
        kernel.reset(new Kernel{name, (void (*)(void **))call, shared});
    }
    *found = kernel.get();
    return OK;
}
Result cuLaunchKernel(Kernel *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                      unsigned block_x, unsigned block_y, unsigned block_z, unsigned dynamic,
                      void *stream, void **arguments, void **) {
    if (const auto error = in_context()) return error;
    if (const auto error = in_order(stream)) return error;
    count(LAUNCHES);
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    const Size grid = {grid_x, grid_y, grid_z}, block = {block_x, block_y, block_z};
    return launch(*kernel, grid, block, dynamic, arguments);
}
Result cuProfilerStart() { return OK; }
Result cuProfilerStop() { return OK; }

Result cuGetErrorName(Result error, const char **name) {
    static const std::map<Result, const char *> KNOWN = {
        {OK, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {ASSERT, "CUDA_ERROR_ASSERT"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
    };
    const auto found = KNOWN.find(error);
    *name = found == KNOWN.end() ? "an error of a stand-in" : found->second;
    return OK;
}
Result cuGetErrorString(Result error, const char **text) { return cuGetErrorName(error, text); }
}
