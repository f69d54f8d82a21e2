// Dropout: element by element a function of a seed and the index, as on the CPU.

struct Dropped {
    u64 seed;
    // Elements whose hash is below it are dropped.
    u64 below;
    double scale;
};

// The factor that an element is multiplied by. The hash is SplitMix64's.
template <typename E>
__device__ typename As<E>::Real factor(const Dropped &dropped, u64 index) {
    u64 hash = dropped.seed + (index + 1) * 0x9e3779b97f4a7c15ull;
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ull;
    hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebull;
    hash ^= hash >> 31;
    return hash < dropped.below ? 0 : (typename As<E>::Real)dropped.scale;
}

// y ← the elements of x that are kept, scaled, plus `onto` if there is one.
template <typename E>
__device__ void drop(u64 len, const Dropped &dropped, const E *x, const E *onto, E *y) {
    for (u64 at = thread(); at < len; at += threads()) {
        const auto left = real(x[at]) * factor<E>(dropped, at);
        put(y[at], onto ? left + real(onto[at]) : left);
    }
}

// Adds to the gradient of x, and to that of `onto` if there is one. The two may be one and the
// same.
template <typename E>
__device__ void drop_gradient(u64 len, const Dropped &dropped, const E *upstream, E *x_gradient,
                              E *onto_gradient) {
    for (u64 at = thread(); at < len; at += threads()) {
        add_to(x_gradient[at], real(upstream[at]) * factor<E>(dropped, at));
        if (onto_gradient) add_to(onto_gradient[at], real(upstream[at]));
    }
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void drop_##name(u64 len, Dropped dropped, const E *x, const E *onto,   \
                                           E *y) {                                                \
        drop<E>(len, dropped, x, onto, y);                                                        \
    }                                                                                             \
    extern "C" __global__ void drop_gradient_##name(u64 len, Dropped dropped, const E *upstream,  \
                                                    E *x_gradient, E *onto_gradient) {            \
        drop_gradient<E>(len, dropped, upstream, x_gradient, onto_gradient);                      \
    }

KINDS(KERNELS)
#undef KERNELS
