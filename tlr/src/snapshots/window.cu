// The end of a window on a GPU, for all tensors of a model in one launch. It computes the same
// products as `products.rs` does on the host.

typedef unsigned long long u64;

// The threads of a block, and the elements that a block sums. Both must equal those in `gpu.rs`.
const unsigned THREADS = 256;
const u64 CHUNK = 4096;

// One row of the table: the addresses of A, B and W of a tensor, its length, and its first block. A
// block works on the last tensor whose first block is not after it.
struct Tensor {
    u64 before, last, now;
    u64 len;
    u64 first;
};

struct Dots {
    double across, own;
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

// Sums over all threads of a block. The order is fixed, so the result is always the same.
__device__ void reduce(Dots mine, Dots *sum) {
    __shared__ Dots sums[THREADS];
    sums[threadIdx.x] = mine;
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            sums[threadIdx.x].across += sums[threadIdx.x + half].across;
            sums[threadIdx.x].own += sums[threadIdx.x + half].own;
        }
    }
    if (threadIdx.x == 0) *sum = sums[0];
}

// With SHIFTS: the dot products ⟨A−B,B−W⟩ and ⟨B−W,B−W⟩ over one block's elements, and W is written
// to the memory of A. Without SHIFTS: only ‖B‖², in the field `own`.
template <typename E, bool SHIFTS>
__device__ void sum(const Tensor *tensors, u64 count, Dots *sums) {
    const Tensor tensor = of_block(tensors, count);
    E *__restrict__ before = (E *)tensor.before;
    const E *__restrict__ last = (const E *)tensor.last;
    const E *__restrict__ now = (const E *)tensor.now;
    const u64 begin = (blockIdx.x - tensor.first) * CHUNK;
    const u64 end = begin + CHUNK < tensor.len ? begin + CHUNK : tensor.len;
    Dots sum = {0.0, 0.0};
#pragma unroll 8
    for (u64 i = begin + threadIdx.x; i < end; i += THREADS) {
        const double b = wide(last[i]);
        if (SHIFTS) {
            const E w = now[i];
            const double moved_then = wide(before[i]) - b;
            const double moved_now = b - wide(w);
            sum.across += moved_then * moved_now;
            sum.own += moved_now * moved_now;
            before[i] = w;
        } else {
            sum.own += b * b;
        }
    }
    reduce(sum, sums + blockIdx.x);
}

// One block for each group. It adds the sums of all blocks that belong to the group: from
// first[group] up to, but not including, first[group + 1].
extern "C" __global__ void total(const Dots *sums, const u64 *first, Dots *totals) {
    Dots sum = {0.0, 0.0};
    for (u64 i = first[blockIdx.x] + threadIdx.x; i < first[blockIdx.x + 1]; i += THREADS) {
        sum.across += sums[i].across;
        sum.own += sums[i].own;
    }
    reduce(sum, totals + blockIdx.x);
}

#define KERNELS(E, name)                                                                           \
    extern "C" __global__ void shift_##name(const Tensor *tensors, u64 count, Dots *sums) {        \
        sum<E, true>(tensors, count, sums);                                                        \
    }                                                                                              \
    extern "C" __global__ void square_##name(const Tensor *tensors, u64 count, Dots *sums) {       \
        sum<E, false>(tensors, count, sums);                                                       \
    }

KERNELS(float, f32)
KERNELS(double, f64)
KERNELS(f16, f16)
