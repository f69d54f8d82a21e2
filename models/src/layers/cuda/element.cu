// What the kernels of the layers share. This file comes first in one source, and the files with
// kernels follow.

// The types of elements that kernels are made for. A program that needs one type compiles only
// that.
#ifndef KINDS
#define KINDS(KERNELS) KERNELS(float, f32) KERNELS(double, f64) KERNELS(f16, f16)
#endif

typedef unsigned int u32;
typedef unsigned long long u64;

// The threads of a block. Must equal the constant in `launch.rs`.
const u32 THREADS = 256;

// Half precision, by its bits: NVRTC has no header for it. A new one is 0.
struct f16 {
    unsigned short bits;
};

// The type that elements are computed in.
template <typename E>
struct As {
    typedef E Real;
};
template <>
struct As<f16> {
    typedef float Real;
};

__device__ inline float real(float x) { return x; }
__device__ inline double real(double x) { return x; }

// Every f16 is also an f32. The bias of the exponent is 15 in f16 and 127 in f32, hence the factor
// 2¹¹².
__device__ inline float real(f16 x) {
    const u32 sign = (x.bits & 0x8000u) << 16, rest = (x.bits & 0x7fffu) << 13;
    if ((x.bits & 0x7c00u) == 0x7c00u) return __uint_as_float(sign | rest | 0x7f800000u);
    const float size = __uint_as_float(rest) * 5192296858534827628530496329220096.0f;  // 2¹¹²
    return sign ? -size : size;
}

__device__ inline void put(float &to, float x) { to = x; }
__device__ inline void put(double &to, double x) { to = x; }

// Rounds to the nearest number, and to the even one if two are equally near.
__device__ inline void put(f16 &to, float x) {
    const u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u;
    const u32 size = bits & 0x7fffffffu;
    u32 rounded;
    if (size > 0x7f800000u) rounded = 0x7e00u;  // NaN
    else if (size >= 0x477ff000u) rounded = 0x7c00u;  // 65520 and more: ∞
    // Below 2⁻¹⁴: the addition rounds to multiples of 2⁻²⁴.
    else if (size < 0x38800000u)
        rounded = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
    else rounded = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
    to.bits = sign | rounded;
}

// Adds a number to an element.
template <typename E>
__device__ void add_to(E &to, typename As<E>::Real x) {
    put(to, real(to) + x);
}

// A number of a tensor in f64, for sums.
template <typename E>
__device__ double wide(E x) {
    return real(x);
}

// The number of this thread among all threads of a row of blocks, and how many threads there are.
__device__ inline u64 thread() { return blockIdx.x * (u64)THREADS + threadIdx.x; }
__device__ inline u64 threads() { return gridDim.x * (u64)THREADS; }

// Each warp takes rows: the number of this warp, how many warps there are, and the thread's place
// in the warp.
const u32 WARP = 32;
__device__ inline u64 warp() { return thread() / WARP; }
__device__ inline u64 warps() { return threads() / WARP; }
__device__ inline u32 lane() { return threadIdx.x % WARP; }

// The sum over a warp, for all its threads, in a fixed order.
__device__ inline double sum_of_warp(double mine) {
    for (u32 by = WARP / 2; by > 0; by /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, by);
    return mine;
}

// The value, rectified if `relu` says so. NaN stays NaN.
template <typename E>
__device__ E rectified(E value, u32 relu) {
    return relu && value < E(0) ? E(0) : value;
}

template <u32 N>
struct Sums {
    double of[N];
};

// The sums over all threads of a block, for all of them. Each pair is added in a fixed order, so
// the result is always the same.
template <u32 N>
__device__ Sums<N> sum_of_block(const Sums<N> &mine) {
    __shared__ Sums<N> sums[THREADS];
    sums[threadIdx.x] = mine;
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            for (u32 n = 0; n < N; n++) sums[threadIdx.x].of[n] += sums[threadIdx.x + half].of[n];
        }
    }
    __syncthreads();
    const Sums<N> sum = sums[0];
    // The next sums go to the same place.
    __syncthreads();
    return sum;
}

// Images of `channels` planes with `pixels` each.
struct Planes {
    u32 images, channels, pixels;
};

// The channel of a block. A row of blocks shares its elements.
__device__ inline u32 channel_of_block() { return blockIdx.y; }

// Calls `each` with the place of each element of the block's share of its channel, from one
// thread of the block. Within the loop nothing is multiplied or divided.
template <typename F>
__device__ void walk(const Planes &planes, F each) {
    const u64 plane = planes.pixels, image = planes.channels * plane;
    const u64 count = planes.images * plane;
    const u64 share = (count + gridDim.x - 1) / gridDim.x;
    const u64 end = share * (blockIdx.x + 1) < count ? share * (blockIdx.x + 1) : count;
    u64 index = share * blockIdx.x + threadIdx.x;
    u32 pixel = index % plane;
    u64 at = index / plane * image + channel_of_block() * plane + pixel;
    // A step of all threads: some whole images, and some pixels, which may lead to the next image.
    const u32 pixels = THREADS % planes.pixels;
    const u64 step = THREADS / planes.pixels * image + pixels, to_next = image - plane;
#pragma unroll 4
    for (; index < end; index += THREADS) {
        each(at);
        at += step;
        pixel += pixels;
        if (pixel >= planes.pixels) {
            pixel -= planes.pixels;
            at += to_next;
        }
    }
}

// The sums of a channel, from those of its row of blocks in `parts`. All threads get them.
template <u32 N>
__device__ Sums<N> sum_of_channel(const Sums<N> *parts) {
    Sums<N> mine = {};
    // There are at most as many blocks as threads.
    if (threadIdx.x < gridDim.x) mine = parts[channel_of_block() * gridDim.x + threadIdx.x];
    return sum_of_block(mine);
}

// One thread of all those that work on a channel.
__device__ inline bool speaks_for_channel() { return blockIdx.x == 0 && threadIdx.x == 0; }
