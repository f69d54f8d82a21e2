// CUDA's language for a C++ compiler of the host. It stands before every kernel. What it declares
// and does not define is in the driver. `__global__` stays as it is, since the driver looks for it.
#pragma once

// What a GPU has is hidden, so that a function which lacks its `__device__` shows.
#define GPU_HIDDEN __attribute__((visibility("hidden")))
#define GPU_OF_HOST __attribute__((visibility("default")))
#pragma GCC visibility push(hidden)
#include "half.h"

#define __CUDACC__ 1
#define __CUDA_ARCH__ 900
#define __device__ GPU_HIDDEN
#define __host__
#define __constant__ static
#define __managed__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// The memory of a module's `thread_local` variables is one piece. The driver finds it, and fills it
// with NaN before each block.
#define __shared__ thread_local

#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define M_PI 3.14159265358979323846
#define M_E 2.71828182845904523536
#define M_SQRT2 1.41421356237309504880
#define M_SQRT1_2 0.70710678118654752440
#define M_2_SQRTPI 1.12837916709551257390

typedef decltype(sizeof(0)) size_t;
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long uint64_t;
// Kernels that define it as well do so by the size of a word.
#define __WORDSIZE 64
typedef long int intptr_t;
typedef unsigned long uintptr_t;

struct uint3 {
    unsigned x, y, z;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

extern "C" {
GPU_OF_HOST extern uint3 threadIdx, blockIdx, blockDim, gridDim;
// One place for each thread of a block, where threads of a warp leave what others read.
GPU_OF_HOST extern unsigned long long gpu_lanes[];
GPU_OF_HOST void __syncthreads();
GPU_OF_HOST void __syncwarp(unsigned mask = 0xffffffffu);
[[noreturn]] GPU_OF_HOST void gpu_assert(const char *what);
}
#define assert(what) ((what) ? (void)0 : gpu_assert(#what))
const int warpSize = 32;
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class To, class From>
inline To gpu_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
inline float __uint_as_float(unsigned x) { return gpu_bits<float>(x); }
inline float __int_as_float(int x) { return gpu_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return gpu_bits<unsigned>(x); }
inline int __float_as_int(float x) { return gpu_bits<int>(x); }
inline double __longlong_as_double(long long x) { return gpu_bits<double>(x); }
inline long long __double_as_longlong(double x) { return gpu_bits<long long>(x); }

// The host's functions, by C's names and by C++'s.
#define GPU_MATH_1(name)                                                                           \
    extern "C" GPU_OF_HOST double name(double);                                                    \
    extern "C" GPU_OF_HOST float name##f(float);                                                   \
    inline float name(float x) { return name##f(x); }
#define GPU_MATH_2(name)                                                                           \
    extern "C" GPU_OF_HOST double name(double, double);                                            \
    extern "C" GPU_OF_HOST float name##f(float, float);                                            \
    inline float name(float x, float y) { return name##f(x, y); }
GPU_MATH_1(sin)
GPU_MATH_1(cos)
GPU_MATH_1(tan)
GPU_MATH_1(tanh)
GPU_MATH_1(exp)
GPU_MATH_1(exp2)
GPU_MATH_1(expm1)
GPU_MATH_1(log)
GPU_MATH_1(log2)
GPU_MATH_1(log1p)
GPU_MATH_1(sqrt)
GPU_MATH_1(fabs)
GPU_MATH_1(floor)
GPU_MATH_1(ceil)
GPU_MATH_1(rint)
GPU_MATH_1(round)
GPU_MATH_1(trunc)
GPU_MATH_1(erf)
GPU_MATH_1(erfc)
GPU_MATH_2(pow)
GPU_MATH_2(fmod)
GPU_MATH_2(fmin)
GPU_MATH_2(fmax)
GPU_MATH_2(copysign)
extern "C" GPU_OF_HOST double fma(double, double, double);
extern "C" GPU_OF_HOST float fmaf(float, float, float);
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
template <class T>
inline bool isnan(T x) { return __builtin_isnan(x); }
template <class T>
inline bool isinf(T x) { return __builtin_isinf(x); }
template <class T>
inline bool isfinite(T x) { return __builtin_isfinite(x); }
template <class T>
inline bool signbit(T x) { return __builtin_signbit(x); }
template <class T>
inline T abs(T x) { return x < 0 ? -x : x; }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }
template <class A, class B>
inline auto min(A a, B b) -> decltype(a + b) { return b < a ? b : a; }
template <class A, class B>
inline auto max(A a, B b) -> decltype(a + b) { return a < b ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

template <class T>
inline T __ldg(const T *at) { return *at; }

// A thread runs until it waits, and no other one meanwhile: all that it does is atomic.
template <class T, class U>
inline T gpu_exchange(T *at, U value) {
    const T before = *at;
    *at = value;
    return before;
}
template <class T, class U>
inline T atomicAdd(T *at, U by) { return gpu_exchange(at, *at + T(by)); }
template <class T, class U>
inline T atomicSub(T *at, U by) { return gpu_exchange(at, *at - T(by)); }
template <class T, class U>
inline T atomicMin(T *at, U by) { return gpu_exchange(at, T(by) < *at ? T(by) : *at); }
template <class T, class U>
inline T atomicMax(T *at, U by) { return gpu_exchange(at, *at < T(by) ? T(by) : *at); }
template <class T, class U>
inline T atomicExch(T *at, U by) { return gpu_exchange(at, T(by)); }
template <class T, class U, class V>
inline T atomicCAS(T *at, U expected, V by) {
    return gpu_exchange(at, *at == T(expected) ? T(by) : *at);
}

// What a thread's neighbours in its warp hold. A lane that does not exist answers with the
// thread's own value, as on a GPU.
inline unsigned gpu_thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
template <class T>
inline T gpu_of_lane(T mine, unsigned mask, unsigned lane, unsigned width) {
    static_assert(sizeof(T) <= sizeof *gpu_lanes, "at most eight bytes");
    const unsigned thread = gpu_thread(), own = thread % width;
    __builtin_memcpy(&gpu_lanes[thread], &mine, sizeof mine);
    __syncwarp(mask);
    T theirs = mine;
    if (lane < width) __builtin_memcpy(&theirs, &gpu_lanes[thread - own + lane], sizeof theirs);
    __syncwarp(mask);
    return theirs;
}
template <class T>
inline T __shfl_sync(unsigned mask, T mine, int lane, int width = 32) {
    return gpu_of_lane(mine, mask, unsigned(lane) % width, width);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T mine, unsigned by, int width = 32) {
    return gpu_of_lane(mine, mask, gpu_thread() % width + by, width);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T mine, unsigned by, int width = 32) {
    return gpu_of_lane(mine, mask, gpu_thread() % width - by, width);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T mine, int by, int width = 32) {
    return gpu_of_lane(mine, mask, (gpu_thread() % width) ^ by, width);
}

// Calls a kernel with arguments that stand in an array of addresses. What stands between braces is
// evaluated from left to right.
struct gpu_call {
    template <class... A>
    gpu_call(void (*kernel)(A...), A... arguments) { kernel(arguments...); }
};
template <class... A>
inline void gpu_unpack(void (*kernel)(A...), void **arguments) {
    gpu_call{kernel, *static_cast<A *>(*arguments++)...};
}
#pragma GCC visibility pop
