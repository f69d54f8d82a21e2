// Token ids to vectors, with the sinusoids of their positions.

// Feature `at` of a position: the sine of position / 10000^(2i/width) for feature 2i, and the
// cosine of the same for the next.
__device__ inline double sinusoid(u64 position, u32 at, u32 width) {
    const double frequency = exp(-(double)(at / 2 * 2) * log(10000.0) / width);
    const double angle = position * frequency;
    return at % 2 == 0 ? sin(angle) : cos(angle);
}

// y[row] ← weight[ids[row]]·scale, plus the sinusoids of the row's place among `length`, if any.
template <typename E>
__device__ void embed(u64 rows, u32 width, u64 length, double scale, const u64 *ids,
                      const E *__restrict__ weight, E *__restrict__ y) {
    typedef typename As<E>::Real Real;
    for (u64 at = thread(); at < rows * width; at += threads()) {
        const u64 row = at / width;
        const u32 feature = at % width;
        const Real value = real(weight[ids[row] * width + feature]) * (Real)scale;
        put(y[at], length ? value + (Real)sinusoid(row % length, feature, width) : value);
    }
}

// Adds to each token's row the gradients of its uses, in order. A thread has a feature of a token
// to itself.
template <typename E>
__device__ void embed_gradient(u64 rows, u32 width, u32 tokens, double scale,
                               const u64 *__restrict__ ids, const E *__restrict__ upstream,
                               E *__restrict__ gradient) {
    for (u64 feature = thread(); feature < width; feature += threads()) {
        for (u32 token = blockIdx.y; token < tokens; token += gridDim.y) {
            typename As<E>::Real sum = 0;
            for (u64 row = 0; row < rows; row++) {
                if (ids[row] != token) continue;
                sum += real(upstream[row * width + feature]) * (typename As<E>::Real)scale;
            }
            add_to(gradient[(u64)token * width + feature], sum);
        }
    }
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void embed_##name(u64 rows, u32 width, u64 length, double scale,        \
                                            const u64 *ids, const E *weight, E *y) {              \
        embed<E>(rows, width, length, scale, ids, weight, y);                                     \
    }                                                                                             \
    extern "C" __global__ void embed_gradient_##name(u64 rows, u32 width, u32 tokens,             \
                                                     double scale, const u64 *ids,                \
                                                     const E *upstream, E *gradient) {            \
        embed_gradient<E>(rows, width, tokens, scale, ids, upstream, gradient);                   \
    }

KINDS(KERNELS)
#undef KERNELS
