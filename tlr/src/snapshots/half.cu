// Copies between a model in half precision and its master in f32, for all tensors of a model in one
// launch. They round as the host does. A row has the address of the source in the place of B, and
// that of the target in the place of A. This file follows window.cu in one source.

__device__ float single(float x) { return x; }
__device__ float single(double x) { return (float)x; }
__device__ float single(f16 x) { return (float)wide(x); }

__device__ void round_to(float x, float &to) { to = x; }
__device__ void round_to(float x, double &to) { to = x; }

// Rounds to the nearest f16, and from halfway between two to the even one.
__device__ void round_to(float x, f16 &to) {
    const unsigned bits = __float_as_uint(x);
    const unsigned sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    unsigned half;
    if (size > 0x7f800000u) {  // NaN
        half = 0x7e00u | (size >> 13 & 0x3ffu);
    } else if (size >= 0x477ff000u) {  // from 65520 on: infinity
        half = 0x7c00u;
    } else if (size >= 0x38800000u) {  // from 2⁻¹⁴ on: the exponent's bias is 112 less
        half = ((size + 0xfffu + (size >> 13 & 1u)) >> 13) - (112u << 10);
    } else {  // subnormal, in steps of 2⁻²⁴, as ½ is followed by in f32
        half = __float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000u;
    }
    to.bits = (unsigned short)(sign | half);
}

// The gradients of the master: those of the model times a factor, an f32 whose bits are in the
// place of W. The sums are the number of a block's elements that are not 0, and the number of
// products that are not finite.
template <typename E>
__device__ void unscale(const Work<2> &work) {
    const Tensor tensor = of_block(work);
    const E *__restrict__ from = (const E *)tensor.last;
    float *__restrict__ to = (float *)tensor.before;
    const float factor = __uint_as_float((unsigned)tensor.now);
    const Part part = of_thread(tensor);
    Sums<2> sum = {};
#pragma unroll 8
    for (u64 i = part.begin; i < part.end; i += THREADS) {
        const E scaled = from[i];
        const float x = factor * single(scaled);
        if (wide(scaled) != 0) sum.of[0] += 1;
        if ((__float_as_uint(x) & 0x7f800000u) == 0x7f800000u) sum.of[1] += 1;
        to[i] = x;
    }
    finish(work, tensor.group, sum);
}

// The model's elements in f32. No sums.
template <typename E>
__device__ void widen(const Work<1> &work) {
    const Tensor tensor = of_block(work);
    const E *__restrict__ from = (const E *)tensor.last;
    float *__restrict__ to = (float *)tensor.before;
    const Part part = of_thread(tensor);
#pragma unroll 8
    for (u64 i = part.begin; i < part.end; i += THREADS) to[i] = single(from[i]);
}

// The master's elements as the model has them. No sums.
template <typename E>
__device__ void narrow(const Work<1> &work) {
    const Tensor tensor = of_block(work);
    const float *__restrict__ from = (const float *)tensor.last;
    E *__restrict__ to = (E *)tensor.before;
    const Part part = of_thread(tensor);
#pragma unroll 8
    for (u64 i = part.begin; i < part.end; i += THREADS) round_to(from[i], to[i]);
}

#define CONVERSIONS(E, name)                                                                       \
    KERNEL(unscale, 2, E, name)                                                                    \
    KERNEL(widen, 1, E, name)                                                                      \
    KERNEL(narrow, 1, E, name)

CONVERSIONS(float, f32)
CONVERSIONS(double, f64)
CONVERSIONS(f16, f16)
