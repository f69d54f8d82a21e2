// Element by element: the rectifier, and the sum that closes a residual block.

template <typename E>
__device__ void rectify(u64 len, const E *x, E *y) {
    for (u64 at = thread(); at < len; at += threads()) put(y[at], rectified(real(x[at]), 1));
}

// x + y, rectified or not.
template <typename E>
__device__ void add(u64 len, u32 relu, const E *x, const E *y, E *sum) {
    for (u64 at = thread(); at < len; at += threads()) {
        put(sum[at], rectified(real(x[at]) + real(y[at]), relu));
    }
}

// Adds a gradient where `result`, if it was rectified, is above 0. The two gradients that it is
// added to may be one and the same.
template <typename E>
__device__ void add_passed(u64 len, u32 relu, const E *result, const E *upstream, E *first,
                           E *second) {
    for (u64 at = thread(); at < len; at += threads()) {
        const bool passes = !relu || real(result[at]) > 0;
        const typename As<E>::Real gradient = passes ? real(upstream[at]) : 0;
        add_to(first[at], gradient);
        if (second) add_to(second[at], gradient);
    }
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void rectify_##name(u64 len, const E *x, E *y) {                        \
        rectify<E>(len, x, y);                                                                    \
    }                                                                                             \
    extern "C" __global__ void add_##name(u64 len, u32 relu, const E *x, const E *y, E *sum) {    \
        add<E>(len, relu, x, y, sum);                                                             \
    }                                                                                             \
    extern "C" __global__ void add_passed_##name(u64 len, u32 relu, const E *result,              \
                                                 const E *upstream, E *first, E *second) {        \
        add_passed<E>(len, relu, result, upstream, first, second);                                \
    }

KINDS(KERNELS)
#undef KERNELS
