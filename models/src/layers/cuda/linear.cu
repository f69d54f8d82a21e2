// A dense layer around its matrix products: the bias, and the rectifier.

// y[row] ← y[row] + bias, rectified or not.
template <typename E>
__device__ void add_bias(u64 rows, u32 width, u32 relu, const E *__restrict__ bias,
                         E *__restrict__ y) {
    for (u64 at = thread(); at < rows * width; at += threads()) {
        put(y[at], rectified(real(y[at]) + real(bias[at % width]), relu));
    }
}

// The sum of each column of a gradient over the share of the rows that belongs to the block's y. If
// y was rectified, `passed` gets the gradient where the rectifier let y through, and 0 elsewhere.
template <typename E>
__device__ void linear_gradient(u64 rows, u32 width, u32 relu, const E *__restrict__ y,
                                const E *__restrict__ upstream, E *__restrict__ passed,
                                Sums<1> *parts) {
    const u64 share = (rows + gridDim.y - 1) / gridDim.y;
    const u64 first = share * blockIdx.y, end = first + share < rows ? first + share : rows;
    for (u64 column = thread(); column < width; column += threads()) {
        Sums<1> sum = {};
#pragma unroll 4
        for (u64 row = first; row < end; row++) {
            const u64 at = row * width + column;
            const E gradient = relu && real(y[at]) <= 0 ? E() : upstream[at];
            if (relu) passed[at] = gradient;
            sum.of[0] += wide(gradient);
        }
        parts[column * gridDim.y + blockIdx.y] = sum;
    }
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void add_bias_##name(u64 rows, u32 width, u32 relu, const E *bias,      \
                                               E *y) {                                            \
        add_bias<E>(rows, width, relu, bias, y);                                                  \
    }                                                                                             \
    extern "C" __global__ void linear_gradient_##name(u64 rows, u32 width, u32 relu, const E *y,  \
                                                      const E *upstream, E *passed,               \
                                                      Sums<1> *parts) {                           \
        linear_gradient<E>(rows, width, relu, y, upstream, passed, parts);                        \
    }

KINDS(KERNELS)
#undef KERNELS
