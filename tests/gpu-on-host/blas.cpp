// cuBLAS: products of matrices by columns, each sum taken in f64 and rounded once.
#include "gpu.h"
#include "include/half.h"

namespace {
enum Status { DONE = 0, INVALID = 7, FAILED = 13, UNSUPPORTED = 15 };
enum Type { F32 = 0, F64 = 1, F16 = 2 };

template <class E>
struct Matrix {
    E *first;
    int step;
    bool transposed;
    E &at(int row, int column) const {
        const auto [down, right] = transposed ? std::pair{column, row} : std::pair{row, column};
        return first[down + (size_t)right * step];
    }
};

struct Sizes {
    int transposed_a, transposed_b, m, n, k, lda, ldb, ldc;
    bool good() const {
        const auto enough = [](int step, int rows) { return step >= (rows > 1 ? rows : 1); };
        return m >= 0 && n >= 0 && k >= 0 && enough(lda, transposed_a ? k : m) &&
               enough(ldb, transposed_b ? n : k) && enough(ldc, m);
    }
};

// C = alpha A B + beta C. Where beta is zero, C is not read.
template <class E>
Status gemm(const char *name, const Sizes &of, int count, double alpha, const E *a,
            long long step_a, const E *b, long long step_b, double beta, E *c, long long step_c) {
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (!of.good() || count < 0) {
        fail(INVALID_VALUE, "%s: m %d, n %d, k %d, ld %d, %d, %d", name, of.m, of.n, of.k, of.lda,
             of.ldb, of.ldc);
        return INVALID;
    }
    const auto work = [&] {
        for (int batch = 0; batch < count; batch++) {
            const Matrix<const E> left = {a + batch * step_a, of.lda, of.transposed_a != 0};
            const Matrix<const E> right = {b + batch * step_b, of.ldb, of.transposed_b != 0};
            const Matrix<E> into = {c + batch * step_c, of.ldc, false};
            for (int column = 0; column < of.n; column++)
                for (int row = 0; row < of.m; row++) {
                    double sum = 0;
                    for (int i = 0; i < of.k; i++)
                        sum += (double)left.at(row, i) * (double)right.at(i, column);
                    E &element = into.at(row, column);
                    element = E(alpha * sum + (beta == 0 ? 0 : beta * (double)element));
                }
        }
    };
    return guarded(name, work) ? FAILED : DONE;
}
}  // namespace

extern "C" {
Status cublasCreate_v2(void **handle) {
    *handle = new char;
    return DONE;
}
Status cublasDestroy_v2(char *handle) {
    delete handle;
    return DONE;
}
Status cublasSetStream_v2(void *, void *) { return DONE; }

#define GEMM(name, E)                                                                              \
    Status name##_v2(void *, int ta, int tb, int m, int n, int k, const E *alpha, const E *a,      \
                     int lda, const E *b, int ldb, const E *beta, E *c, int ldc) {                 \
        const Sizes of = {ta, tb, m, n, k, lda, ldb, ldc};                                         \
        return gemm(#name, of, 1, *alpha, a, 0, b, 0, *beta, c, 0);                                \
    }                                                                                              \
    Status name##StridedBatched(void *, int ta, int tb, int m, int n, int k, const E *alpha,       \
                                const E *a, int lda, long long step_a, const E *b, int ldb,        \
                                long long step_b, const E *beta, E *c, int ldc, long long step_c,  \
                                int count) {                                                       \
        const Sizes of = {ta, tb, m, n, k, lda, ldb, ldc};                                         \
        return gemm(#name, of, count, *alpha, a, step_a, b, step_b, *beta, c, step_c);             \
    }
GEMM(cublasSgemm, float)
GEMM(cublasDgemm, double)

// dfdx asks for f16, summed in f32.
Status cublasGemmStridedBatchedEx(void *, int ta, int tb, int m, int n, int k, const float *alpha,
                                  const __half *a, Type type_a, int lda, long long step_a,
                                  const __half *b, Type type_b, int ldb, long long step_b,
                                  const float *beta, __half *c, Type type_c, int ldc,
                                  long long step_c, int count, int compute, int) {
    const int IN_F32 = 68;
    if (type_a != F16 || type_b != F16 || type_c != F16 || compute != IN_F32) return UNSUPPORTED;
    const Sizes of = {ta, tb, m, n, k, lda, ldb, ldc};
    return gemm("cublasGemmEx", of, count, *alpha, a, step_a, b, step_b, *beta, c, step_c);
}
Status cublasGemmEx(void *handle, int ta, int tb, int m, int n, int k, const float *alpha,
                    const __half *a, Type type_a, int lda, const __half *b, Type type_b, int ldb,
                    const float *beta, __half *c, Type type_c, int ldc, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, type_a, lda, 0, b, type_b,
                                      ldb, 0, beta, c, type_c, ldc, 0, 1, compute, algorithm);
}
}
