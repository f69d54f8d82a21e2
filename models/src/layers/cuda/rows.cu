// Layer norm: y = x̂·weight + bias with x̂ = (x − mean) / √(variance + eps) in each row, of which
// each warp takes one.

template <typename E>
__device__ typename As<E>::Real normal(E x, const Statistics &of) {
    return (typename As<E>::Real)((wide(x) - of.mean) * of.inverse);
}

template <typename E>
__device__ void layer_norm(u64 rows, u32 width, double eps, const E *__restrict__ x,
                           const E *__restrict__ weight, const E *__restrict__ bias,
                           Statistics *statistics, E *__restrict__ y) {
    for (u64 row = warp(); row < rows; row += warps()) {
        const E *from = x + row * width;
        double sum = 0, squares = 0;
        for (u32 at = lane(); at < width; at += WARP) sum += wide(from[at]);
        const double mean = sum_of_warp(sum) / width;
        for (u32 at = lane(); at < width; at += WARP) {
            const double centered = wide(from[at]) - mean;
            squares += centered * centered;
        }
        const Statistics own = {mean, 1 / sqrt(sum_of_warp(squares) / width + eps)};
        if (lane() == 0) statistics[row] = own;
        for (u32 at = lane(); at < width; at += WARP) {
            const auto scaled = normal(from[at], own) * real(weight[at]);
            put(y[row * width + at], scaled + real(bias[at]));
        }
    }
}

// Adds inverse·(g − mean(g) − x̂·mean(g·x̂)) to the gradient of x, with g = upstream·weight.
template <typename E>
__device__ void layer_norm_gradient(u64 rows, u32 width, const E *__restrict__ x,
                                    const E *__restrict__ weight, const Statistics *statistics,
                                    const E *__restrict__ upstream, E *__restrict__ x_gradient) {
    for (u64 row = warp(); row < rows; row += warps()) {
        const Statistics own = statistics[row];
        const u64 first = row * width;
        double sum = 0, along = 0;
        for (u32 at = lane(); at < width; at += WARP) {
            const double through = wide(upstream[first + at]) * wide(weight[at]);
            sum += through;
            along += through * wide(normal(x[first + at], own));
        }
        const double mean = sum_of_warp(sum) / width;
        along = sum_of_warp(along) / width;
        for (u32 at = lane(); at < width; at += WARP) {
            const double through = wide(upstream[first + at]) * wide(weight[at]);
            const double centered = wide(normal(x[first + at], own));
            const double gradient = own.inverse * (through - mean - centered * along);
            add_to(x_gradient[first + at], (typename As<E>::Real)gradient);
        }
    }
}

// Σ upstream·x̂ and Σ upstream of each column, over the share of the rows that belongs to the
// block's y.
template <typename E>
__device__ void layer_norm_columns(u64 rows, u32 width, const E *__restrict__ x,
                                   const Statistics *__restrict__ statistics,
                                   const E *__restrict__ upstream, Sums<2> *parts) {
    const u64 share = (rows + gridDim.y - 1) / gridDim.y;
    const u64 first = share * blockIdx.y, end = first + share < rows ? first + share : rows;
    for (u64 column = thread(); column < width; column += threads()) {
        Sums<2> sum = {};
#pragma unroll 4
        for (u64 row = first; row < end; row++) {
            const double gradient = wide(upstream[row * width + column]);
            sum.of[0] += gradient * wide(normal(x[row * width + column], statistics[row]));
            sum.of[1] += gradient;
        }
        parts[(u64)blockIdx.y * width + column] = sum;
    }
}

// Adds the sums of each column's `shares` parts to two gradients.
template <typename E>
__device__ void add_columns(u32 width, u32 shares, const Sums<2> *parts, E *first, E *second) {
    for (u64 column = thread(); column < width; column += threads()) {
        Sums<2> sum = {};
        for (u32 share = 0; share < shares; share++) {
            for (u32 n = 0; n < 2; n++) sum.of[n] += parts[(u64)share * width + column].of[n];
        }
        add_to(first[column], (typename As<E>::Real)sum.of[0]);
        add_to(second[column], (typename As<E>::Real)sum.of[1]);
    }
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void layer_norm_##name(u64 rows, u32 width, double eps, const E *x,     \
                                                 const E *weight, const E *bias,                  \
                                                 Statistics *statistics, E *y) {                  \
        layer_norm<E>(rows, width, eps, x, weight, bias, statistics, y);                          \
    }                                                                                             \
    extern "C" __global__ void layer_norm_gradient_##name(                                        \
        u64 rows, u32 width, const E *x, const E *weight, const Statistics *statistics,           \
        const E *upstream, E *x_gradient) {                                                       \
        layer_norm_gradient<E>(rows, width, x, weight, statistics, upstream, x_gradient);         \
    }                                                                                             \
    extern "C" __global__ void layer_norm_columns_##name(                                         \
        u64 rows, u32 width, const E *x, const Statistics *statistics, const E *upstream,         \
        Sums<2> *parts) {                                                                         \
        layer_norm_columns<E>(rows, width, x, statistics, upstream, parts);                       \
    }                                                                                             \
    extern "C" __global__ void add_columns_##name(u32 width, u32 shares, const Sums<2> *parts,    \
                                                  E *first, E *second) {                          \
        add_columns<E>(width, shares, parts, first, second);                                      \
    }

KINDS(KERNELS)
#undef KERNELS
