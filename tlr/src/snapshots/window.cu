// The end of a window and the slopes on a GPU, for all tensors of a model in one launch. The
// kernels compute the same sums as `products.rs`, `sums.rs` and `way.rs` do on the host.

typedef unsigned long long u64;

// The threads of a block, and the elements that a block sums. Both must equal those in `launch.rs`.
const unsigned THREADS = 256;
const u64 CHUNK = 4096;

// One row of the table: the addresses of A, B, W and the gradient of a tensor, its length, and its
// first block. A block works on the last tensor whose first block is not after it.
struct Tensor {
    u64 before, last, now, gradient;
    u64 len;
    u64 first;
};

template <unsigned N>
struct Sums {
    double of[N];
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

__device__ Tensor of_block(const Tensor *tensors, u64 count) {
    u64 found = 0, end = count;
    while (end - found > 1) {
        const u64 middle = (found + end) / 2;
        if (tensors[middle].first <= blockIdx.x) found = middle;
        else end = middle;
    }
    return tensors[found];
}

// The elements that one thread works on: from `begin` in steps of THREADS, up to but not including
// `end`.
struct Part {
    u64 begin, end;
};

__device__ Part of_thread(const Tensor &tensor) {
    const u64 begin = (blockIdx.x - tensor.first) * CHUNK;
    const u64 end = begin + CHUNK < tensor.len ? begin + CHUNK : tensor.len;
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

// The dot products ⟨A−B,B−W⟩ and ⟨B−W,B−W⟩ over one block's elements. W is written to the memory of
// A.
template <typename E>
__device__ void shift(const Tensor *tensors, u64 count, Sums<2> *sums) {
    const Tensor tensor = of_block(tensors, count);
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
    reduce(sum, sums + blockIdx.x);
}

// ‖B‖² over one block's elements.
template <typename E>
__device__ void square(const Tensor *tensors, u64 count, Sums<1> *sums) {
    const Tensor tensor = of_block(tensors, count);
    const E *__restrict__ last = (const E *)tensor.last;
    const Part part = of_thread(tensor);
    Sums<1> sum = {};
#pragma unroll 8
    for (u64 i = part.begin; i < part.end; i += THREADS) {
        const double b = wide(last[i]);
        sum.of[0] += b * b;
    }
    reduce(sum, sums + blockIdx.x);
}

// ⟨g,d⟩, ‖d‖², ‖g‖² and ‖P‖² over one block's elements, where d = W − P and P is the snapshot in
// the place of B.
template <typename E>
__device__ void slope(const Tensor *tensors, u64 count, Sums<4> *sums) {
    const Tensor tensor = of_block(tensors, count);
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
    reduce(sum, sums + blockIdx.x);
}

// One block for each group. It adds the sums of all blocks that belong to the group: from
// first[group] up to, but not including, first[group + 1].
template <unsigned N>
__device__ void total(const Sums<N> *sums, const u64 *first, Sums<N> *totals) {
    Sums<N> sum = {};
    for (u64 i = first[blockIdx.x] + threadIdx.x; i < first[blockIdx.x + 1]; i += THREADS) {
        for (unsigned n = 0; n < N; n++) sum.of[n] += sums[i].of[n];
    }
    reduce(sum, totals + blockIdx.x);
}

#define KERNELS(E, name)                                                                           \
    extern "C" __global__ void shift_##name(const Tensor *tensors, u64 count, Sums<2> *sums) {     \
        shift<E>(tensors, count, sums);                                                            \
    }                                                                                              \
    extern "C" __global__ void square_##name(const Tensor *tensors, u64 count, Sums<1> *sums) {    \
        square<E>(tensors, count, sums);                                                           \
    }                                                                                              \
    extern "C" __global__ void slope_##name(const Tensor *tensors, u64 count, Sums<4> *sums) {     \
        slope<E>(tensors, count, sums);                                                            \
    }

KERNELS(float, f32)
KERNELS(double, f64)
KERNELS(f16, f16)

#define TOTAL(N)                                                                                   \
    extern "C" __global__ void total_##N(const Sums<N> *sums, const u64 *first, Sums<N> *totals) { \
        total<N>(sums, first, totals);                                                             \
    }

TOTAL(1)
TOTAL(2)
TOTAL(4)
