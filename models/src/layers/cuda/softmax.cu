// Softmax over rows, a warp a row: attention's weights, and the loss of a classifier.

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }

template <typename R>
__device__ R lowest() {
    return (R)__uint_as_float(0xff800000u);  // −∞
}

// The largest of a warp, for all its threads; NaN is left out.
template <typename R>
__device__ R most_of_warp(R mine) {
    for (u32 by = WARP / 2; by > 0; by /= 2) {
        const R other = __shfl_xor_sync(0xffffffffu, mine, by);
        mine = other > mine ? other : mine;
    }
    return mine;
}

// The scores of queries for keys: (batch, heads, queries, keys).
struct Scores {
    u32 heads, queries, keys;
    // Query i sees keys 0 to i only.
    u32 causal;
};

// Turns scores into weights. A key that `padded` marks in its sequence is not seen, if `padded` is
// given. A query that sees no key has weights of 0.
template <typename E>
__device__ void weigh(u64 rows, const Scores &of, double scale, const unsigned char *padded,
                      E *weights) {
    typedef typename As<E>::Real Real;
    const Real by = (Real)scale;
    for (u64 row = warp(); row < rows; row += warps()) {
        E *scores = weights + row * of.keys;
        const u32 query = row % of.queries;
        const u64 sequence = row / ((u64)of.heads * of.queries);
        Real most = lowest<Real>();
        double seen = 0;
        for (u32 key = lane(); key < of.keys; key += WARP) {
            const bool hidden =
                (of.causal && key > query) || (padded && padded[sequence * of.keys + key]);
            const Real score = hidden ? lowest<Real>() : real(scores[key]) * by;
            put(scores[key], score);
            // The score, rounded as it will be read.
            if (real(scores[key]) > most) most = real(scores[key]);
            if (!(score == lowest<Real>())) seen = 1;
        }
        most = most_of_warp(most);
        const bool any = sum_of_warp(seen) > 0;
        double sum = 0;
        for (u32 key = lane(); key < of.keys; key += WARP) {
            put(scores[key], any ? exponential(real(scores[key]) - most) : 0);
            sum += wide(scores[key]);
        }
        sum = sum_of_warp(sum);
        const Real share = any ? (Real)(1 / sum) : 0;
        for (u32 key = lane(); key < of.keys; key += WARP) {
            put(scores[key], real(scores[key]) * share);
        }
    }
}

// Turns gradients of the weights, after dropout, into gradients of the scores.
template <typename E>
__device__ void weigh_gradient(u64 rows, u32 keys, double scale, const Dropped &dropped,
                               const E *__restrict__ weights, E *__restrict__ gradients) {
    for (u64 row = warp(); row < rows; row += warps()) {
        const u64 first = row * keys;
        double mean = 0;
        for (u32 key = lane(); key < keys; key += WARP) {
            E &gradient = gradients[first + key];
            put(gradient, real(gradient) * factor<E>(dropped, first + key));
            mean += wide(gradient) * wide(weights[first + key]);
        }
        mean = sum_of_warp(mean);
        for (u32 key = lane(); key < keys; key += WARP) {
            const double gradient = wide(gradients[first + key]) - mean;
            const double of_score = wide(weights[first + key]) * gradient * scale;
            put(gradients[first + key], (typename As<E>::Real)of_score);
        }
    }
}

// The largest logit of a row, and the sum of the exponentials of the differences to it.
struct Spread {
    double most, sum;
};

// losses[row] ← −ln softmax(logits)[label], or 0 where the label is ignored.
template <typename E>
__device__ void losses(u64 rows, u32 classes, const E *__restrict__ logits, const u64 *labels,
                       u64 ignored, Spread *spreads, double *each) {
    for (u64 row = warp(); row < rows; row += warps()) {
        const u64 label = labels[row];
        if (label == ignored) {
            if (lane() == 0) each[row] = 0;
            continue;
        }
        const E *from = logits + row * classes;
        typename As<E>::Real most = lowest<typename As<E>::Real>();
        for (u32 at = lane(); at < classes; at += WARP) {
            if (real(from[at]) > most) most = real(from[at]);
        }
        most = most_of_warp(most);
        double sum = 0;
        for (u32 at = lane(); at < classes; at += WARP) sum += exponential(real(from[at]) - most);
        sum = sum_of_warp(sum);
        if (lane() == 0) {
            spreads[row] = {most, sum};
            each[row] = log(sum) - (wide(from[label]) - most);
        }
    }
}

// loss ← the sum of all rows' losses, times `share`. One block does it.
template <typename E>
__device__ void total_loss(u64 rows, double share, const double *each, E *loss) {
    Sums<1> sum = {};
    for (u64 row = threadIdx.x; row < rows; row += THREADS) sum.of[0] += each[row];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) put(*loss, (typename As<E>::Real)(sum.of[0] * share));
}

// Adds (softmax − 1 at the label)·share·upstream to the gradient of each row that counts.
template <typename E>
__device__ void loss_gradient(u64 rows, u32 classes, double share, const E *__restrict__ logits,
                              const u64 *labels, u64 ignored, const Spread *spreads,
                              const E *upstream, E *__restrict__ gradient) {
    typedef typename As<E>::Real Real;
    const double scale = wide(*upstream) * share;
    for (u64 row = warp(); row < rows; row += warps()) {
        const u64 label = labels[row];
        if (label == ignored) continue;
        const Spread own = spreads[row];
        const Real most = (Real)own.most, of_each = (Real)(scale / own.sum);
        for (u32 at = lane(); at < classes; at += WARP) {
            const u64 place = row * classes + at;
            Real by = exponential(real(logits[place]) - most) * of_each;
            if (at == label) by -= (Real)scale;
            add_to(gradient[place], by);
        }
    }
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void weigh_##name(u64 rows, Scores of, double scale,                    \
                                            const unsigned char *padded, E *weights) {            \
        weigh<E>(rows, of, scale, padded, weights);                                               \
    }                                                                                             \
    extern "C" __global__ void weigh_gradient_##name(u64 rows, u32 keys, double scale,            \
                                                     Dropped dropped, const E *weights,           \
                                                     E *gradients) {                              \
        weigh_gradient<E>(rows, keys, scale, dropped, weights, gradients);                        \
    }                                                                                             \
    extern "C" __global__ void losses_##name(u64 rows, u32 classes, const E *logits,              \
                                             const u64 *labels, u64 ignored, Spread *spreads,     \
                                             double *each) {                                      \
        losses<E>(rows, classes, logits, labels, ignored, spreads, each);                         \
    }                                                                                             \
    extern "C" __global__ void total_loss_##name(u64 rows, double share, const double *each,      \
                                                 E *loss) {                                       \
        total_loss<E>(rows, share, each, loss);                                                   \
    }                                                                                             \
    extern "C" __global__ void loss_gradient_##name(                                              \
        u64 rows, u32 classes, double share, const E *logits, const u64 *labels, u64 ignored,     \
        const Spread *spreads, const E *upstream, E *gradient) {                                  \
        loss_gradient<E>(rows, classes, share, logits, labels, ignored, spreads, upstream,        \
                         gradient);                                                               \
    }

KINDS(KERNELS)
#undef KERNELS
