// What the stand-in for a GPU has to do: run kernels as a GPU does, and punish what a GPU would
// punish, or hides. With the variable GPU_ON_HOST_BACKWARDS the last thread of a block is the first.
#include "include/half.h"
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

extern "C" {
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuMemAllocAsync(uint64_t *, size_t, void *);
int cuMemFreeAsync(uint64_t, void *);
int cuMemcpyHtoDAsync_v2(uint64_t, const void *, size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, uint64_t, size_t, void *);
int cuMemHostAlloc(void **, size_t, unsigned);
int cuMemFreeHost(void *);
int cuStreamSynchronize(void *);
uint64_t gpu_on_host_count(int);
int cuModuleLoadData(void **, const char *);
int cuModuleGetFunction(void **, void *, const char *);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void *, void **, void **);
int nvrtcCreateProgram(void **, const char *, const char *, int, const char *const *,
                       const char *const *);
int nvrtcCompileProgram(void *, int, const char *const *);
int nvrtcGetPTXSize(void *, size_t *);
int nvrtcGetPTX(void *, char *);
int cublasDgemm_v2(void *, int, int, int, int, int, const double *, const double *, int,
                   const double *, int, const double *, double *, int);
int cudnnCreate(void **);
int cudnnDestroy(void *);
int cudnnSetStream(void *, void *);
int cudnnCreateTensorDescriptor(void **);
int cudnnCreateFilterDescriptor(void **);
int cudnnCreateConvolutionDescriptor(void **);
int cudnnSetTensor4dDescriptor(void *, int, int, int, int, int, int);
int cudnnSetFilter4dDescriptor(void *, int, int, int, int, int, int);
int cudnnSetConvolution2dDescriptor(void *, int, int, int, int, int, int, int, int);
int cudnnSetConvolutionMathType(void *, int);
int cudnnGetConvolutionForwardWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *);
int cudnnConvolutionForward(void *, const float *, void *, const void *, void *, const void *,
                            void *, int, void *, size_t, const float *, void *, void *);
int cublasGemmEx(void *, int, int, int, int, int, const void *, const void *, int, int, const void *,
                 int, int, const void *, void *, int, int, int, int);
}

static int failures = 0;

static void expect(bool good, const char *what) {
    if (good) return;
    failures++;
    printf("FAILED: %s\n", what);
}

// A kernel `k` with this body, which has `out` and a number `n`. Null if it does not compile.
static void *kernel(const std::string &body, const std::string &before = "") {
    const auto source = before + "extern \"C\" __global__ void k(float *out, const size_t n) {\n"
                                 "    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;\n" +
                        body + "\n}\n";
    void *program, *module, *found;
    nvrtcCreateProgram(&program, source.c_str(), nullptr, 0, nullptr, nullptr);
    if (nvrtcCompileProgram(program, 0, nullptr)) return nullptr;
    size_t size;
    nvrtcGetPTXSize(program, &size);
    std::vector<char> text(size);
    nvrtcGetPTX(program, text.data());
    if (cuModuleLoadData(&module, text.data())) return nullptr;
    return cuModuleGetFunction(&found, module, "k") ? nullptr : found;
}

struct Size {
    unsigned x, y, z;
};

static int launch(void *kernel, uint64_t out, size_t n, Size grid, Size block, unsigned dynamic) {
    void *arguments[] = {&out, &n};
    return cuLaunchKernel(kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, dynamic,
                          nullptr, arguments, nullptr);
}

// The error of a launch on `n` new numbers, and what they are afterwards.
static int run(const std::string &body, size_t n, Size grid, Size block, std::vector<float> &out,
               const std::string &before = "") {
    void *made = kernel(body, before);
    if (!made) return -1;
    uint64_t address;
    cuMemAllocAsync(&address, n * sizeof(float), nullptr);
    const int error = launch(made, address, n, grid, block, 0);
    out.resize(n);
    cuMemcpyDtoHAsync_v2(out.data(), address, n * sizeof(float), nullptr);
    cuMemFreeAsync(address, nullptr);
    return error;
}

static int error_of(const std::string &body, size_t n, Size grid, Size block,
                    const std::string &before = "") {
    std::vector<float> out;
    return run(body, n, grid, block, out, before);
}

static void kernels_run() {
    std::vector<float> out;
    const auto is = [&](size_t i, float value) { return i < out.size() && out[i] == value; };
    expect(run("if (i < n) out[i] = 2 * sqrtf(i);", 1000, {8, 1, 1}, {128, 1, 1}, out) == 0 &&
               is(999, 2 * sqrtf(999)),
           "a thread for each number");
    expect(run("const unsigned at = threadIdx.x + 4 * (threadIdx.y + 3 * threadIdx.z) + 24 * "
               "(blockIdx.y + gridDim.y * blockIdx.z); out[at] = at;",
               144, {1, 2, 3}, {4, 3, 2}, out) == 0 &&
               is(0, 0) && is(143, 143) && is(77, 77),
           "three dimensions");
    const std::string sum = "__shared__ float of[64]; of[threadIdx.x] = i; for (int by = 32; by; "
                            "by /= 2) { SYNC if (threadIdx.x < by) of[threadIdx.x] += "
                            "of[threadIdx.x + by]; } if (!threadIdx.x) out[blockIdx.x] = *of;";
    const std::string sync = "#define SYNC __syncthreads();\n", none = "#define SYNC\n";
    expect(run(sum, 2, {2, 1, 1}, {64, 1, 1}, out, sync) == 0 && is(0, 2016) && is(1, 6112),
           "a sum over a block");
    expect(run("if (i >= 40) return;\n" + sum, 1, {1, 1, 1}, {64, 1, 1}, out, sync) == 0 &&
               std::isnan(out[0]),
           "threads that end are not waited for, and shared memory is not zero");
    expect(run("float x = i; for (int by = 16; by; by /= 2) x += __shfl_down_sync(~0u, x, by); if "
               "(i % 32 == 0) out[i / 32] = x;",
               2, {1, 1, 1}, {64, 1, 1}, out) == 0 &&
               is(0, 496) && is(1, 1520),
           "a sum over a warp");
    // Without barriers, the first thread of all reads what others have not written yet.
    const bool seen = run(sum, 2, {2, 1, 1}, {64, 1, 1}, out, none) || !is(0, 2016);
    // Each thread reads what the one before has written.
    const std::string shift = "__shared__ float of[64]; of[threadIdx.x] = i; out[i] = threadIdx.x ? "
                              "of[threadIdx.x - 1] : 0;";
    const bool seen_too = run(shift, 64, {1, 1, 1}, {64, 1, 1}, out) || !is(63, 62);
    const bool backwards = getenv("GPU_ON_HOST_BACKWARDS");
    expect(backwards ? seen_too : seen, "a barrier that is missing");
    expect(run("if (i) out[1] = 5; else out[0] = out[1];", 2, {2, 1, 1}, {1, 1, 1}, out) == 0 &&
               (backwards ? is(0, 5) : std::isnan(out[0])),
           "blocks in order, or in the other one");
    expect(run("", 3, {1, 1, 1}, {1, 1, 1}, out) == 0 && std::isnan(out[2]),
           "new memory is not a number");
}

static void faults_are_seen() {
    const Size one = {1, 1, 1}, block = {64, 1, 1};
    const int ILLEGAL = 700, INVALID = 1;
    expect(error_of("out[i + 1] = 1;", 64, one, block) == ILLEGAL, "a write behind the end");
    expect(error_of("out[i + 1] = 1;", 61, one, {61, 1, 1}) == ILLEGAL, "a write just behind");
    expect(error_of("out[(int)i - 1] = 1;", 64, one, block) == ILLEGAL, "a write before");
    expect(error_of("out[i] = out[i + 1];", 64, one, block) == ILLEGAL, "a read behind the end");
    expect(error_of("out[i] = *(float *)(size_t)i;", 64, one, block) == ILLEGAL, "a null pointer");
    expect(error_of("assert(i < 5);", 64, one, block) == 710, "an assertion");
    expect(error_of("if (i) __syncwarp(); else __syncthreads();", 64, one, block) == 719,
           "threads that wait for each other at two places");
    expect(error_of("", 1, one, {1025, 1, 1}) == INVALID, "a block of 1025");
    expect(error_of("", 1, one, {32, 33, 1}) == INVALID, "a block of 32 by 33");
    expect(error_of("", 1, one, {1, 1, 65}) == INVALID, "a block 65 deep");
    expect(error_of("", 1, {1, 65536, 1}, one) == INVALID, "65536 blocks in y");
    expect(error_of("", 1, {0, 1, 1}, one) == INVALID, "no block");
    expect(error_of("__shared__ double of[6145]; of[i] = n; __syncthreads(); *out = of[n];", 1, one,
                    one) == -1,
           "more than 48 KiB of shared memory");
    expect(launch(kernel(""), 0, 0, one, one, 49153) == INVALID, "too much shared memory asked for");
    const std::string twice = "float twice(float x) { return 2 * x; }\n", use = "out[i] = twice(i);";
    expect(error_of(use, 1, one, one, "__device__ " + twice) == 0, "a function of the GPU");
    expect(error_of(use, 1, one, one, "inline " + twice) == -1, "a function that is not");
    uint64_t address;
    cuMemAllocAsync(&address, 64, nullptr);
    float host[17] = {};
    expect(cuMemcpyHtoDAsync_v2(address, host, 68, nullptr) == INVALID, "a copy that is too long");
    cuMemFreeAsync(address, nullptr);
    expect(launch(kernel("out[i] = 1;"), address, 1, one, one, 0) == ILLEGAL, "what was freed");
    expect(cuMemFreeAsync(address, nullptr) == INVALID, "what is freed twice");
}

// By columns: A is 2 by 3, B is 3 by 2, and either also as its transpose.
static void matrices_multiply() {
    const double a[] = {1, 4, 2, 5, 3, 6}, at[] = {1, 2, 3, 4, 5, 6};
    const double b[] = {7, 9, 11, 8, 10, 12}, bt[] = {7, 8, 9, 10, 11, 12};
    const double product[] = {58, 139, 64, 154}, two = 2, zero = 0, one = 1;
    for (int which = 0; which < 4; which++) {
        const bool ta = which & 1, tb = which & 2;
        // There is a row between the columns of C that is left alone.
        double c[] = {NAN, NAN, 5, NAN, NAN, 5};
        const auto multiply = [&](double alpha, double beta) {
            return cublasDgemm_v2(nullptr, ta, tb, 2, 2, 3, &alpha, ta ? at : a, ta ? 3 : 2,
                                  tb ? bt : b, tb ? 2 : 3, &beta, c, 3);
        };
        bool good = multiply(one, zero) == 0;
        good = good && multiply(two, one) == 0 && c[2] == 5 && c[5] == 5;
        for (int i = 0; i < 4; i++) good = good && c[i % 2 + 3 * (i / 2)] == 3 * product[i];
        expect(good, "a product of matrices");
    }
    double c[4];
    expect(cublasDgemm_v2(nullptr, 0, 0, 2, 2, 3, &one, a, 1, b, 3, &zero, c, 2) == 7,
           "columns that overlap");
}

// Every half is an f32, and what lies between two goes to the nearer one, or to the even one.
static void halves_round() {
    bool same = true, nearest = true;
    for (unsigned bits = 0; bits < 0x7c00; bits++) {
        const double low = gpu_from_half(bits);
        const double high = bits == 0x7bff ? 65536 : (double)gpu_from_half(bits + 1);
        const double middle = (low + high) / 2, less = std::nextafter(middle, 0);
        same = same && gpu_to_half(low) == bits && gpu_to_half(-low) == (bits | 0x8000);
        nearest = nearest && gpu_to_half(less) == bits && gpu_to_half(middle) == bits + (bits & 1) &&
                  gpu_to_half(std::nextafter(middle, INFINITY)) == bits + 1;
    }
    expect(same && gpu_from_half(0x3c00) == 1 && gpu_from_half(0xc000) == -2, "halves");
    expect(nearest, "numbers between halves");
    expect(std::isinf(gpu_from_half(0x7c00)) && std::isnan(gpu_from_half(gpu_to_half(NAN))),
           "halves that are not finite");
    const __half a[] = {1, 4, 2, 5, 3, 6}, b[] = {7, 9, 11, 8, 10, 12};
    const float one = 1, zero = 0;
    const int IN_F16 = 2, IN_F32 = 68;
    __half c[4];
    const int error = cublasGemmEx(nullptr, 0, 0, 2, 2, 3, &one, a, IN_F16, 2, b, IN_F16, 3, &zero,
                                   c, IN_F16, 2, IN_F32, -1);
    expect(error == 0 && c[0] == 58 && c[1] == 139 && c[2] == 64 && c[3] == 154,
           "a product of matrices of halves");
}

// Two filters of 1 by 2 pixels on an image of 2 by 2, padded on all sides.
static void cudnn_convolves() {
    const int FLOAT = 0, CROSS_CORRELATION = 1, FMA = 3, GOOD = 1, BAD = 2000;
    void *handle, *x, *w, *y, *convolution;
    cudnnCreate(&handle);
    cudnnCreateTensorDescriptor(&x);
    cudnnCreateFilterDescriptor(&w);
    cudnnCreateTensorDescriptor(&y);
    cudnnCreateConvolutionDescriptor(&convolution);
    cudnnSetTensor4dDescriptor(x, 0, FLOAT, 1, 1, 2, 2);
    cudnnSetFilter4dDescriptor(w, FLOAT, 0, 2, 1, 1, 2);
    cudnnSetTensor4dDescriptor(y, 0, FLOAT, 1, 2, 4, 3);
    cudnnSetConvolution2dDescriptor(convolution, 1, 1, 1, 1, 1, 1, CROSS_CORRELATION, FLOAT);
    cudnnSetConvolutionMathType(convolution, FMA);
    const float image[] = {1, 2, 3, 4}, filters[] = {1, 10, 0, 1}, one = 1, zero = 0;
    const float expected[] = {10, 21, 2, 30, 43, 4, 1, 2, 0, 3, 4, 0};
    float result[24];
    uint64_t places[4];
    const size_t sizes[] = {sizeof image, sizeof filters, sizeof result, 1000};
    for (int i = 0; i < 4; i++) cuMemAllocAsync(&places[i], sizes[i], nullptr);
    cuMemcpyHtoDAsync_v2(places[0], image, sizeof image, nullptr);
    cuMemcpyHtoDAsync_v2(places[1], filters, sizeof filters, nullptr);
    size_t needed = 0;
    const auto run = [&](size_t bytes, void *to) {
        return cudnnConvolutionForward(handle, &one, x, (void *)places[0], w, (void *)places[1],
                                       convolution, GOOD, (void *)places[3], bytes, &zero, to,
                                       (void *)places[2]);
    };
    expect(run(1000, y) == BAD, "a convolution on no stream");
    cudnnSetStream(handle, nullptr);
    expect(cudnnGetConvolutionForwardWorkspaceSize(handle, x, w, convolution, y, GOOD, &needed) ==
                   0 && needed > 0,
           "an algorithm that needs memory");
    expect(run(needed - 1, y) == BAD, "a workspace that is too small");
    expect(run(needed, x) == BAD, "an output of another size");
    bool good = run(needed, y) == 0;
    cuMemcpyDtoHAsync_v2(result, places[2], sizeof result, nullptr);
    for (int i = 0; i < 6; i++)
        good = good && result[3 + i] == expected[i] && result[15 + i] == expected[6 + i];
    expect(good && result[0] == 0 && result[23] == 0, "a convolution");
    cudnnSetConvolutionMathType(convolution, 0);
    expect(run(needed, y) == BAD, "math that may round to TF32");
    for (int i = 0; i < 4; i++) cuMemFreeAsync(places[i], nullptr);
    expect(cudnnDestroy(handle) == 0 && cudnnDestroy(handle) == BAD, "a handle that is gone");
}

// A copy to memory that a GPU writes to by itself is there once it was waited for, and is counted.
static void copies_take_their_time() {
    const int COPIES_FROM = 2, WAITS = 7;
    double *landing, number = 3;
    uint64_t address;
    cuMemAllocAsync(&address, sizeof number, nullptr);
    cuMemcpyHtoDAsync_v2(address, &number, sizeof number, nullptr);
    const auto copies = gpu_on_host_count(COPIES_FROM), waits = gpu_on_host_count(WAITS);
    bool good = cuMemHostAlloc((void **)&landing, 2 * sizeof number, 0) == 0;
    good = good && cuMemcpyDtoHAsync_v2(landing + 1, address, sizeof number, nullptr) == 0;
    good = good && std::isnan(landing[1]) && cuStreamSynchronize(nullptr) == 0;
    expect(good && landing[1] == 3 && std::isnan(landing[0]), "a copy that takes its time");
    expect(gpu_on_host_count(COPIES_FROM) == copies + 1 && gpu_on_host_count(WAITS) == waits + 1,
           "counts of copies and of waiting");
    cuMemcpyDtoHAsync_v2(landing, address, sizeof number, nullptr);
    expect(cuMemFreeHost(landing) != 0, "memory that is freed while it is being written to");
    cuStreamSynchronize(nullptr);
    cuMemFreeAsync(address, nullptr);
}

int main() {
    cuInit(0);
    void *context;
    uint64_t address;
    expect(cuMemAllocAsync(&address, 64, nullptr) == 201, "a thread that is bound to no device");
    cuDevicePrimaryCtxRetain(&context, 0);
    cuCtxSetCurrent(context);
    kernels_run();
    faults_are_seen();
    // None of the faults has done harm.
    kernels_run();
    matrices_multiply();
    halves_round();
    cudnn_convolves();
    copies_take_their_time();
    if (failures == 0) puts("the stand-in for a GPU does what it has to");
    return failures != 0;
}
