// The end of a window and the slopes on a GPU, for all tensors of a model in one launch. The
// kernels compute the same sums as `products.rs`, `sums.rs` and `way.rs` do on the host.

typedef unsigned long long u64;

// The threads of a block, and the elements that a block sums. Both must equal those in `launch.rs`.
const unsigned THREADS = 256;
const u64 ELEMENTS = 4096;

// One row of the table: the addresses of A, B, W and the gradient of a tensor, its length, its
// first block, and its group. A block works on the last tensor whose first block is not after it.
struct Tensor {
    u64 before, last, now, gradient;
    u64 len;
    u64 first;
    u64 group;
};

template <unsigned N>
struct Sums {
    double of[N];
};

// What a kernel works on. Behind the last row there are the first block of each group and the
// number of all blocks. `blocks` has room for the sums of each block, and `groups` for those of
// each group. `ended` counts the blocks of each group that are through: it is 0 before a launch and
// after it.
template <unsigned N>
struct Work {
    const Tensor *tensors;
    u64 count;
    Sums<N> *blocks;
    unsigned *ended;
    Sums<N> *groups;
};

struct f16 {
    unsigned short bits;
};

__device__ double wide(float x) { return x; }
__device__ double wide(double x) { return x; }

// Every f16 is also an f32. The bias of the exponent is 15 in f16 and 127 in f32, hence the factor
// 2¹¹².
__device__ double wide(f16 x) {
    const unsigned sign = (x.bits & 0x8000u) << 16;
    const unsigned rest = (x.bits & 0x7fffu) << 13;
    if ((x.bits & 0x7c00u) == 0x7c00u) return __uint_as_float(sign | rest | 0x7f800000u);
    const double size = __uint_as_float(rest) * 5192296858534827628530496329220096.0;  // 2¹¹²
    return sign ? -size : size;
}

template <unsigned N>
__device__ Tensor of_block(const Work<N> &work) {
    u64 found = 0, end = work.count;
    while (end - found > 1) {
        const u64 middle = (found + end) / 2;
        if (work.tensors[middle].first <= blockIdx.x) found = middle;
        else end = middle;
    }
    return work.tensors[found];
}

// The elements that one thread works on: from `begin` in steps of THREADS, up to but not including
// `end`.
struct Part {
    u64 begin, end;
};

__device__ Part of_thread(const Tensor &tensor) {
    const u64 begin = (blockIdx.x - tensor.first) * ELEMENTS;
    const u64 end = begin + ELEMENTS < tensor.len ? begin + ELEMENTS : tensor.len;
    return {begin + threadIdx.x, end};
}

// Sums over all threads of a block. The order is fixed, so the result is always the same.
template <unsigned N>
__device__ void reduce(const Sums<N> &mine, Sums<N> *sum) {
    __shared__ Sums<N> sums[THREADS];
    sums[threadIdx.x] = mine;
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            for (unsigned n = 0; n < N; n++) {
                sums[threadIdx.x].of[n] += sums[threadIdx.x + half].of[n];
            }
        }
    }
    if (threadIdx.x == 0) *sum = sums[0];
}

// Writes a block's sums. The block of a group that is the last one to end adds up those of all the
// group's blocks, in the order of the blocks, so that the result does not depend on which block is
// last.
template <unsigned N>
__device__ void finish(const Work<N> &work, u64 group, const Sums<N> &mine) {
    __shared__ bool is_last;
    reduce(mine, work.blocks + blockIdx.x);
    const u64 *first = (const u64 *)(work.tensors + work.count) + group;
    const u64 begin = first[0], end = first[1];
    if (threadIdx.x == 0) {
        // The sums are in memory before the block counts as ended.
        __threadfence();
        is_last = atomicAdd(work.ended + group, 1u) + 1 == end - begin;
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    // Other blocks have written these sums, so they must not be read from a cache of this block.
    const volatile Sums<N> *blocks = work.blocks;
    Sums<N> sum = {};
    for (u64 i = begin + threadIdx.x; i < end; i += THREADS) {
        for (unsigned n = 0; n < N; n++) sum.of[n] += blocks[i].of[n];
    }
    reduce(sum, work.groups + group);
    if (threadIdx.x == 0) work.ended[group] = 0;
}

// The dot products ⟨A−B,B−W⟩ and ⟨B−W,B−W⟩ over one block's elements. W is written to the memory of
// A.
template <typename E>
__device__ void shift(const Work<2> &work) {
    const Tensor tensor = of_block(work);
    E *__restrict__ before = (E *)tensor.before;
    const E *__restrict__ last = (const E *)tensor.last;
    const E *__restrict__ now = (const E *)tensor.now;
    const Part part = of_thread(tensor);
    Sums<2> sum = {};
#pragma unroll 8
    for (u64 i = part.begin; i < part.end; i += THREADS) {
        const E w = now[i];
        const double b = wide(last[i]);
        const double moved_then = wide(before[i]) - b;
        const double moved_now = b - wide(w);
        sum.of[0] += moved_then * moved_now;
        sum.of[1] += moved_now * moved_now;
        before[i] = w;
    }
    finish(work, tensor.group, sum);
}

// ‖B‖² over one block's elements.
template <typename E>
__device__ void square(const Work<1> &work) {
    const Tensor tensor = of_block(work);
    const E *__restrict__ last = (const E *)tensor.last;
    const Part part = of_thread(tensor);
    Sums<1> sum = {};
#pragma unroll 8
    for (u64 i = part.begin; i < part.end; i += THREADS) {
        const double b = wide(last[i]);
        sum.of[0] += b * b;
    }
    finish(work, tensor.group, sum);
}

// ⟨g,d⟩, ‖d‖², ‖g‖² and ‖P‖² over one block's elements, where d = W − P and P is the snapshot in
// the place of B.
template <typename E>
__device__ void slope(const Work<4> &work) {
    const Tensor tensor = of_block(work);
    const E *__restrict__ from = (const E *)tensor.last;
    const E *__restrict__ now = (const E *)tensor.now;
    const E *__restrict__ gradient = (const E *)tensor.gradient;
    const Part part = of_thread(tensor);
    Sums<4> sum = {};
#pragma unroll 8
    for (u64 i = part.begin; i < part.end; i += THREADS) {
        const double p = wide(from[i]);
        const double g = wide(gradient[i]);
        const double d = wide(now[i]) - p;
        sum.of[0] += g * d;
        sum.of[1] += d * d;
        sum.of[2] += g * g;
        sum.of[3] += p * p;
    }
    finish(work, tensor.group, sum);
}

#define KERNEL(kernel, N, E, name)                                                                 \
    extern "C" __global__ void kernel##_##name(const Tensor *tensors, u64 count, Sums<N> *blocks,  \
                                               unsigned *ended, Sums<N> *groups) {                 \
        kernel<E>({tensors, count, blocks, ended, groups});                                        \
    }
#define KERNELS(E, name)                                                                           \
    KERNEL(shift, 2, E, name)                                                                      \
    KERNEL(square, 1, E, name)                                                                     \
    KERNEL(slope, 4, E, name)

KERNELS(float, f32)
KERNELS(double, f64)
KERNELS(f16, f16)
