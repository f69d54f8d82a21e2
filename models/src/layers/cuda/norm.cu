// Batch normalization: y = (x − mean)·slope + bias in each channel, rectified or not.

// A channel's mean, and 1/√(variance + eps).
struct Statistics {
    double mean, inverse;
};

// A channel's numbers as its elements need them, in their own type.
template <typename E>
struct Channel {
    typedef typename As<E>::Real Real;
    Real mean, slope, bias;

    __device__ Channel(const Statistics &of, E weight, E bias)
        : mean((Real)of.mean), slope((Real)(of.inverse * wide(weight))), bias(real(bias)) {}

    __device__ Real centered(E x) const { return real(x) - mean; }

    // The mean is subtracted first: numbers far from 0 would otherwise lose their digits.
    __device__ Real normalized(E x) const { return centered(x) * slope + bias; }

    // The gradient, or 0 if the rectifier did not let `x` pass.
    __device__ Real passing(E gradient, E x, u32 relu) const {
        return relu && normalized(x) <= Real(0) ? Real(0) : real(gradient);
    }
};

// Σ (x − o) and Σ (x − o)² over the block's share of a channel, where o is the channel's first
// element: this takes one pass, and the variance loses at most as many digits as the number of
// elements has.
template <typename E>
__device__ void norm_sums(Planes planes, const E *__restrict__ x, Sums<2> *parts) {
    const double origin = wide(x[(u64)channel_of_block() * planes.pixels]);
    Sums<2> sum = {};
    walk(planes, [&](u64 at) {
        const double away = wide(x[at]) - origin;
        sum.of[0] += away;
        sum.of[1] += away * away;
    });
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) parts[channel_of_block() * gridDim.x + blockIdx.x] = sum;
}

// Normalizes by the batch's statistics, and writes these too.
template <typename E>
__device__ void norm_train(Planes planes, u32 relu, double eps, const E *__restrict__ x,
                           const E *weight, const E *bias, const Sums<2> *parts,
                           Statistics *statistics, E *mean, E *var, E *__restrict__ y) {
    const u32 channel = channel_of_block();
    const double count = (double)planes.images * planes.pixels;
    const Sums<2> sum = sum_of_channel(parts);
    const double away = sum.of[0] / count;
    const double spread = sum.of[1] / count - away * away;
    // Rounding may have made the variance negative. NaN stays NaN.
    const double variance = spread < 0 ? 0 : spread;
    const Statistics own = {wide(x[(u64)channel * planes.pixels]) + away,
                            1 / sqrt(variance + eps)};
    if (speaks_for_channel()) {
        statistics[channel] = own;
        put(mean[channel], (typename As<E>::Real)own.mean);
        put(var[channel], (typename As<E>::Real)variance);
    }
    const Channel<E> numbers(own, weight[channel], bias[channel]);
    walk(planes, [&](u64 at) { put(y[at], rectified(numbers.normalized(x[at]), relu)); });
}

// Normalizes by the running statistics.
template <typename E>
__device__ void norm_infer(Planes planes, u32 relu, double eps, const E *__restrict__ x,
                           const E *mean, const E *var, const E *weight, const E *bias,
                           E *__restrict__ y) {
    const u32 channel = channel_of_block();
    const Statistics own = {wide(mean[channel]), 1 / sqrt(wide(var[channel]) + eps)};
    const Channel<E> numbers(own, weight[channel], bias[channel]);
    walk(planes, [&](u64 at) { put(y[at], rectified(numbers.normalized(x[at]), relu)); });
}

// Σ g and Σ g·(x − mean) over the block's share of a channel, g being the gradient where it passes.
template <typename E>
__device__ void norm_gradient_sums(Planes planes, u32 relu, const E *__restrict__ x,
                                   const E *__restrict__ upstream, const Statistics *statistics,
                                   const E *weight, const E *bias, Sums<2> *parts) {
    const u32 channel = channel_of_block();
    const Channel<E> numbers(statistics[channel], weight[channel], bias[channel]);
    Sums<2> sum = {};
    walk(planes, [&](u64 at) {
        const double gradient = numbers.passing(upstream[at], x[at], relu);
        sum.of[0] += gradient;
        sum.of[1] += gradient * numbers.centered(x[at]);
    });
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) parts[channel * gridDim.x + blockIdx.x] = sum;
}

// Adds to the gradients of x, weight and bias:
// slope·(g − mean(g) − x̂·mean(g·x̂)) with x̂ = (x − mean)·inverse, Σ g·x̂ and Σ g.
template <typename E>
__device__ void norm_gradients(Planes planes, u32 relu, const E *__restrict__ x,
                               const E *__restrict__ upstream, const Statistics *statistics,
                               const E *weight, const E *bias, const Sums<2> *parts,
                               E *__restrict__ x_gradient, E *weight_gradient, E *bias_gradient) {
    typedef typename As<E>::Real Real;
    const u32 channel = channel_of_block();
    const double count = (double)planes.images * planes.pixels;
    const Sums<2> sum = sum_of_channel(parts);
    const Statistics own = statistics[channel];
    if (speaks_for_channel()) {
        add_to(weight_gradient[channel], (Real)(sum.of[1] * own.inverse));
        add_to(bias_gradient[channel], (Real)sum.of[0]);
    }
    const Channel<E> numbers(own, weight[channel], bias[channel]);
    const Real mean = (Real)(sum.of[0] / count);
    const Real along = (Real)(sum.of[1] / count * own.inverse * own.inverse);
    walk(planes, [&](u64 at) {
        const Real gradient = numbers.passing(upstream[at], x[at], relu);
        const Real centered = numbers.centered(x[at]);
        add_to(x_gradient[at], numbers.slope * (gradient - mean - centered * along));
    });
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void norm_sums_##name(Planes planes, const E *x, Sums<2> *parts) {      \
        norm_sums<E>(planes, x, parts);                                                           \
    }                                                                                             \
    extern "C" __global__ void norm_train_##name(                                                 \
        Planes planes, u32 relu, double eps, const E *x, const E *weight, const E *bias,          \
        const Sums<2> *parts, Statistics *statistics, E *mean, E *var, E *y) {                    \
        norm_train<E>(planes, relu, eps, x, weight, bias, parts, statistics, mean, var, y);       \
    }                                                                                             \
    extern "C" __global__ void norm_infer_##name(Planes planes, u32 relu, double eps, const E *x, \
                                                 const E *mean, const E *var, const E *weight,    \
                                                 const E *bias, E *y) {                           \
        norm_infer<E>(planes, relu, eps, x, mean, var, weight, bias, y);                          \
    }                                                                                             \
    extern "C" __global__ void norm_gradient_sums_##name(                                         \
        Planes planes, u32 relu, const E *x, const E *upstream, const Statistics *statistics,     \
        const E *weight, const E *bias, Sums<2> *parts) {                                         \
        norm_gradient_sums<E>(planes, relu, x, upstream, statistics, weight, bias, parts);        \
    }                                                                                             \
    extern "C" __global__ void norm_gradients_##name(                                             \
        Planes planes, u32 relu, const E *x, const E *upstream, const Statistics *statistics,     \
        const E *weight, const E *bias, const Sums<2> *parts, E *x_gradient, E *weight_gradient,  \
        E *bias_gradient) {                                                                       \
        norm_gradients<E>(planes, relu, x, upstream, statistics, weight, bias, parts, x_gradient, \
                          weight_gradient, bias_gradient);                                        \
    }

KINDS(KERNELS)
#undef KERNELS
