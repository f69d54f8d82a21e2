// Half precision in software: computed in f32, then rounded to the nearest, of two to the even one.
#pragma once

inline unsigned short gpu_to_half(double x) {
    const unsigned short sign = __builtin_signbit(x) ? 0x8000 : 0;
    const double size = __builtin_fabs(x);
    if (size != size) return 0x7fff;
    if (size >= 65520) return sign | 0x7c00;
    // Subnormal ones are in steps of 2⁻²⁴.
    if (size < 0x1p-14) return sign | (unsigned short)__builtin_rint(size * 0x1p24);
    int exponent;
    const double mantissa = __builtin_rint(__builtin_frexp(size, &exponent) * 2048);
    // A mantissa that was rounded up to 2048 goes on to the next exponent.
    return sign | (unsigned short)((exponent + 14) * 1024 + (int)mantissa - 1024);
}

inline float gpu_from_half(unsigned short bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float size = __builtin_ldexpf(mantissa + (exponent ? 1024 : 0), (exponent ? exponent : 1) - 25);
    if (exponent == 31) size = mantissa ? __builtin_nanf("") : __builtin_inff();
    return bits & 0x8000 ? -size : size;
}

struct __half {
    unsigned short bits;
    __half() = default;
    template <class T>
    __half(T x) : bits(gpu_to_half(x)) {}
    operator float() const { return gpu_from_half(bits); }
    __half operator-() const { return -float(*this); }
    __half &operator+=(__half x) { return *this = float(*this) + float(x); }
    __half &operator-=(__half x) { return *this = float(*this) - float(x); }
    __half &operator*=(__half x) { return *this = float(*this) * float(x); }
    __half &operator/=(__half x) { return *this = float(*this) / float(x); }
};
typedef __half half;

inline __half operator+(__half a, __half b) { return a += b; }
inline __half operator-(__half a, __half b) { return a -= b; }
inline __half operator*(__half a, __half b) { return a *= b; }
inline __half operator/(__half a, __half b) { return a /= b; }

inline __half __float2half(float x) { return x; }
inline float __half2float(__half x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) {
    __half x;
    x.bits = bits;
    return x;
}
inline bool __hisnan(__half x) { return __builtin_isnan(float(x)); }
inline __half __habs(__half x) { return __builtin_fabsf(x); }
inline __half __hmin(__half a, __half b) { return __builtin_fminf(a, b); }
inline __half __hmax(__half a, __half b) { return __builtin_fmaxf(a, b); }
inline __half __hmin_nan(__half a, __half b) { return __hisnan(a) || b > a ? a : b; }
inline __half __hmax_nan(__half a, __half b) { return __hisnan(a) || b < a ? a : b; }
inline __half hsin(__half x) { return __builtin_sinf(x); }
inline __half hcos(__half x) { return __builtin_cosf(x); }
inline __half hexp(__half x) { return __builtin_expf(x); }
inline __half hlog(__half x) { return __builtin_logf(x); }
inline __half hsqrt(__half x) { return __builtin_sqrtf(x); }
