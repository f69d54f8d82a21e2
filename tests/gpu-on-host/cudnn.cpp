// cuDNN's convolutions, each sum taken in f64 and rounded once: what `models/src/layers/cuda/cudnn/`
// asks for, as strict as cuDNN may be. Of the algorithms that it names one alone is good: the others
// differ from run to run, or take more memory than they are worth, or are refused.
#include "gpu.h"
#include "include/half.h"
#include <set>
#include <vector>

namespace {
enum Status { DONE = 0, BAD_PARAM = 2000, REFUSED = 3000, FAILED = 5000 };
enum Type { F32 = 0, F16 = 2 };
const int NCHW = 0, CROSS_CORRELATION = 1, TENSOR_OP_MATH = 1, FMA_MATH = 3;

// What each algorithm is for. Numbers are cuDNN's own for some, and mean nothing here.
enum Algorithm { VARIES = 0, GOOD = 1, REFUSED_LATE = 2, LARGE = 3, UNKNOWN = 6 };
const size_t TOO_LARGE = (size_t)4 << 30;

struct Descriptor {
    enum Kind { TENSOR, FILTERS, CONVOLUTION } kind;
    bool is_set = false;
    int type = -1;
    int sizes[4] = {};
    int padding = 0, stride = 1, dilation = 1, groups = 1, math = -1;
};

struct Handle {
    void *context, *stream = nullptr;
    bool has_stream = false;
};

std::recursive_mutex cudnn;
std::set<Descriptor *> descriptors;
std::set<Handle *> handles;

template <class... T>
Status refuse(const char *format, T... values) {
    fail(INVALID_VALUE, (std::string("cuDNN: ") + format).c_str(), values...);
    return BAD_PARAM;
}

Status make(Descriptor **made, Descriptor::Kind kind) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    *made = new Descriptor{kind};
    descriptors.insert(*made);
    return DONE;
}

bool is(Descriptor *of, Descriptor::Kind kind) {
    return descriptors.count(of) && of->kind == kind;
}

Status unmake(Descriptor *of, Descriptor::Kind kind) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    if (!is(of, kind)) return refuse("a descriptor that there is not");
    descriptors.erase(of);
    delete of;
    return DONE;
}

Status set(Descriptor *of, Descriptor::Kind kind, int type, int format, const int (&sizes)[4]) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    if (!is(of, kind)) return refuse("a descriptor of another kind");
    if (format != NCHW || (type != F32 && type != F16)) return refuse("only NCHW in f32 and f16");
    size_t all = 1;
    for (int i = 0; i < 4; i++) {
        if (sizes[i] < 1) return refuse("a size of %d", sizes[i]);
        all *= of->sizes[i] = sizes[i];
    }
    if (all > 0x7fffffff) return refuse("a tensor of %zu elements", all);
    of->type = type;
    of->is_set = true;
    return DONE;
}

// The operands of a pass, whatever it is.
struct Operands {
    Descriptor *x, *w, *y, *convolution;
    size_t len(const Descriptor *of) const {
        size_t bytes = of->type == F16 ? 2 : 4;
        for (const int size : of->sizes) bytes *= size;
        return bytes;
    }
    Status check(Handle *handle) const {
        if (!handles.count(handle)) return refuse("there is no such handle");
        void *context = nullptr;
        if (in_context() || (cuCtxGetCurrent(&context), context != handle->context))
            return refuse("the thread is bound to another GPU");
        if (!handle->has_stream) return refuse("no stream was set");
        if (!is(x, Descriptor::TENSOR) || !is(y, Descriptor::TENSOR) ||
            !is(w, Descriptor::FILTERS) || !is(convolution, Descriptor::CONVOLUTION))
            return refuse("a descriptor of another kind, or an order that is not the pass's");
        if (!x->is_set || !w->is_set || !y->is_set || !convolution->is_set)
            return refuse("a descriptor that was not set");
        const auto &c = *convolution;
        if (x->type != w->type || x->type != y->type) return refuse("types that differ");
        if (c.math != (x->type == F16 ? TENSOR_OP_MATH : FMA_MATH))
            return refuse("math %d for type %d", c.math, x->type);
        bool good = x->sizes[0] == y->sizes[0] && w->sizes[0] == y->sizes[1] &&
                    x->sizes[1] == w->sizes[1] * c.groups && w->sizes[0] % c.groups == 0;
        for (int i = 2; i < 4; i++) {
            const int reach = (w->sizes[i] - 1) * c.dilation + 1;
            good = good && y->sizes[i] == (x->sizes[i] + 2 * c.padding - reach) / c.stride + 1;
        }
        return good ? DONE : refuse("sizes that do not fit each other");
    }
    size_t memory() const { return 4 * (size_t)w->sizes[1] * y->sizes[3] + 20; }
};

enum Pass { FORWARD, DATA, FILTER };

Operands operands(Pass pass, Descriptor *first, Descriptor *second, Descriptor *convolution,
                  Descriptor *to) {
    switch (pass) {
        case FORWARD: return {first, second, to, convolution};
        case DATA: return {to, first, second, convolution};
        default: return {first, to, second, convolution};
    }
}

// As cudnnConvolutionFwdAlgoPerf_t.
struct Performance {
    int algorithm, status;
    float time;
    size_t memory;
    int deterministic, math, reserved[3];
};

Status choose(Pass pass, Handle *handle, Descriptor *first, Descriptor *second,
              Descriptor *convolution, Descriptor *to, int most, int *found, Performance *of) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    const auto all = operands(pass, first, second, convolution, to);
    if (const auto error = all.check(handle)) return error;
    const Performance KNOWN[] = {
        {UNKNOWN, REFUSED, -1, 0, 1, FMA_MATH, {}}, {VARIES, DONE, 1, 0, 0, FMA_MATH, {}},
        {LARGE, DONE, 2, TOO_LARGE, 1, FMA_MATH, {}}, {REFUSED_LATE, DONE, 3, 0, 1, FMA_MATH, {}},
        {GOOD, DONE, 4, all.memory(), 1, FMA_MATH, {}},
    };
    for (*found = 0; *found < 5 && *found < most; ++*found) of[*found] = KNOWN[*found];
    return DONE;
}

Status workspace(Pass pass, Handle *handle, Descriptor *first, Descriptor *second,
                 Descriptor *convolution, Descriptor *to, int algorithm, size_t *bytes) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    const auto all = operands(pass, first, second, convolution, to);
    if (const auto error = all.check(handle)) return error;
    if (algorithm == UNKNOWN) return REFUSED;
    *bytes = algorithm == GOOD ? all.memory() : algorithm == LARGE ? TOO_LARGE : 0;
    return DONE;
}

// Adds up what a convolution does, product by product: `add(x, w, y)` gets places.
template <class Add>
void convolve(const Operands &all, Add add) {
    const auto &[x, w, y, c] = all;
    const int *of_x = x->sizes, *of_w = w->sizes, *of_y = y->sizes;
    const int outputs = of_w[0] / c->groups;
    for (int n = 0; n < of_y[0]; n++)
        for (int k = 0; k < of_y[1]; k++)
            for (int i = 0; i < of_w[1]; i++)
                for (int r = 0; r < of_w[2]; r++)
                    for (int s = 0; s < of_w[3]; s++)
                        for (int p = 0; p < of_y[2]; p++) {
                            const int h = p * c->stride - c->padding + r * c->dilation;
                            if (h < 0 || h >= of_x[2]) continue;
                            for (int q = 0; q < of_y[3]; q++) {
                                const int v = q * c->stride - c->padding + s * c->dilation;
                                if (v < 0 || v >= of_x[3]) continue;
                                const int channel = k / outputs * of_w[1] + i;
                                add((((size_t)n * of_x[1] + channel) * of_x[2] + h) * of_x[3] + v,
                                    (((size_t)k * of_w[1] + i) * of_w[2] + r) * of_w[3] + s,
                                    (((size_t)n * of_y[1] + k) * of_y[2] + p) * of_y[3] + q);
                            }
                        }
}

template <class E>
void run(Pass pass, const Operands &all, const E *first, const E *second, float onto, E *to) {
    const Descriptor *written = pass == FORWARD ? all.y : pass == DATA ? all.x : all.w;
    std::vector<double> sums(all.len(written) / sizeof(E));
    convolve(all, [&](size_t x, size_t w, size_t y) {
        switch (pass) {
            case FORWARD: sums[y] += (double)first[x] * (double)second[w]; break;
            case DATA: sums[x] += (double)first[w] * (double)second[y]; break;
            default: sums[w] += (double)first[x] * (double)second[y];
        }
    });
    // Where the factor is zero, what was there is not read.
    for (size_t i = 0; i < sums.size(); i++) to[i] = E(sums[i] + (onto == 0 ? 0 : (double)to[i]));
}

Status run(Pass pass, Handle *handle, const float *alpha, Descriptor *d1, const void *first,
           Descriptor *d2, const void *second, Descriptor *convolution, int algorithm, char *memory,
           size_t bytes, const float *beta, Descriptor *d3, void *to) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    const auto all = operands(pass, d1, d2, convolution, d3);
    if (const auto error = all.check(handle)) return error;
    if (in_order(handle->stream)) return FAILED;
    if (algorithm == REFUSED_LATE) return REFUSED;
    if (algorithm != GOOD && algorithm != VARIES) return refuse("algorithm %d", algorithm);
    if (*alpha != 1 || (*beta != 0 && *beta != 1)) return refuse("factors %g, %g", *alpha, *beta);
    const std::lock_guard<std::mutex> one(one_at_a_time);
    const size_t needed = algorithm == GOOD ? all.memory() : 0;
    if (bytes < needed || (needed && !is_allocated((uint64_t)memory, needed)))
        return refuse("a workspace of %zu bytes, where %zu are needed", bytes, needed);
    const std::pair<Descriptor *, const void *> operands[] = {{d1, first}, {d2, second}, {d3, to}};
    for (const auto &[of, address] : operands)
        if (!is_allocated((uint64_t)address, all.len(of)))
            return refuse("%zu bytes that are %s", all.len(of),
                          describe((uint64_t)address).c_str());
    static float varying = 0;
    const auto work = [&] {
        for (size_t i = 0; i < needed; i++) memory[i] = 0x55;
        if (d1->type == F16)
            run(pass, all, (const __half *)first, (const __half *)second, *beta, (__half *)to);
        else run(pass, all, (const float *)first, (const float *)second, *beta, (float *)to);
        if (algorithm == VARIES && d1->type == F32) *(float *)to += varying++;
    };
    return guarded("a convolution of cuDNN's", work) ? FAILED : DONE;
}
}  // namespace

extern "C" {
size_t cudnnGetVersion() { return 91000; }
const char *cudnnGetErrorString(Status status) {
    switch (status) {
        case DONE: return "CUDNN_STATUS_SUCCESS";
        case BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
        case REFUSED: return "CUDNN_STATUS_NOT_SUPPORTED";
        default: return "CUDNN_STATUS_EXECUTION_FAILED";
    }
}
Status cudnnCreate(Handle **made) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    void *context = nullptr;
    if (in_context() || cuCtxGetCurrent(&context)) return refuse("the thread is bound to no GPU");
    *made = new Handle{context};
    handles.insert(*made);
    return DONE;
}
Status cudnnDestroy(Handle *handle) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    if (!handles.erase(handle)) return refuse("there is no such handle");
    delete handle;
    return DONE;
}
Status cudnnSetStream(Handle *handle, void *stream) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    if (!handles.count(handle)) return refuse("there is no such handle");
    handle->stream = stream;
    handle->has_stream = true;
    return DONE;
}

#define DESCRIPTOR(Name, KIND)                                                                     \
    Status cudnnCreate##Name##Descriptor(Descriptor **made) {                                      \
        return make(made, Descriptor::KIND);                                                       \
    }                                                                                              \
    Status cudnnDestroy##Name##Descriptor(Descriptor *of) { return unmake(of, Descriptor::KIND); }
DESCRIPTOR(Tensor, TENSOR)
DESCRIPTOR(Filter, FILTERS)
DESCRIPTOR(Convolution, CONVOLUTION)

Status cudnnSetTensor4dDescriptor(Descriptor *of, int format, int type, int n, int c, int h,
                                  int w) {
    return set(of, Descriptor::TENSOR, type, format, {n, c, h, w});
}
Status cudnnSetFilter4dDescriptor(Descriptor *of, int type, int format, int k, int c, int h,
                                  int w) {
    return set(of, Descriptor::FILTERS, type, format, {k, c, h, w});
}
Status cudnnSetConvolution2dDescriptor(Descriptor *of, int high, int wide, int down, int right,
                                       int dilation, int dilation_right, int mode, int sums) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    if (!is(of, Descriptor::CONVOLUTION)) return refuse("a descriptor of another kind");
    if (high != wide || down != right || dilation != dilation_right || down < 1 || dilation < 1 ||
        high < 0 || mode != CROSS_CORRELATION || sums != F32)
        return refuse("another convolution than there is here");
    of->padding = high;
    of->stride = down;
    of->dilation = dilation;
    of->is_set = true;
    return DONE;
}
Status cudnnSetConvolutionGroupCount(Descriptor *of, int groups) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    if (!is(of, Descriptor::CONVOLUTION) || groups < 1) return refuse("%d groups", groups);
    of->groups = groups;
    return DONE;
}
Status cudnnSetConvolutionMathType(Descriptor *of, int math) {
    const std::lock_guard<std::recursive_mutex> lock(cudnn);
    if (!is(of, Descriptor::CONVOLUTION)) return refuse("a descriptor of another kind");
    of->math = math;
    return DONE;
}

#define PASS(Name, PASS)                                                                           \
    Status cudnnGetConvolution##Name##Algorithm_v7(                                                \
        Handle *handle, Descriptor *first, Descriptor *second, Descriptor *convolution,            \
        Descriptor *to, int most, int *found, Performance *of) {                                   \
        return choose(PASS, handle, first, second, convolution, to, most, found, of);              \
    }                                                                                              \
    Status cudnnGetConvolution##Name##WorkspaceSize(                                               \
        Handle *handle, Descriptor *first, Descriptor *second, Descriptor *convolution,            \
        Descriptor *to, int algorithm, size_t *bytes) {                                            \
        return workspace(PASS, handle, first, second, convolution, to, algorithm, bytes);          \
    }                                                                                              \
    Status cudnnConvolution##Name(Handle *handle, const float *alpha, Descriptor *d1,              \
                                  const void *first, Descriptor *d2, const void *second,           \
                                  Descriptor *convolution, int algorithm, char *memory,            \
                                  size_t bytes, const float *beta, Descriptor *d3, void *to) {     \
        return run(PASS, handle, alpha, d1, first, d2, second, convolution, algorithm, memory,     \
                   bytes, beta, d3, to);                                                           \
    }
PASS(Forward, FORWARD)
PASS(BackwardData, DATA)
PASS(BackwardFilter, FILTER)
}
