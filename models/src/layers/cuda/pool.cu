// Pooling: the largest pixel, or the mean, of the windows of an image.

struct Window {
    u32 planes, height, width;
    u32 kernel, stride, padding;
    u32 out_height, out_width;
};

// The positions from `first` up to but not including `end`.
struct Range {
    u32 first, end;
};

// The pixels in the window of an output, of the `size` pixels of a line.
__device__ inline Range pixels_of(const Window &g, u32 output, u32 size) {
    const u32 first = output * g.stride, end = first + g.kernel;
    const u32 inside = end < g.padding ? 0 : end - g.padding;
    return {first < g.padding ? 0 : first - g.padding, inside < size ? inside : size};
}

// The outputs whose windows hold a pixel, of the `count` outputs of a line.
__device__ inline Range outputs_of(const Window &g, u32 pixel, u32 count) {
    const u32 padded = pixel + g.padding;
    const u32 first = padded < g.kernel ? 0 : (padded - g.kernel) / g.stride + 1;
    const u32 end = padded / g.stride + 1;
    return {first, end < count ? end : count};
}

// Calls `each` with the place of each output, and with its window: the plane, and the window's rows
// and columns there.
template <typename E, typename F>
__device__ void each_window(const Window &g, const E *x, F each) {
    const u32 outputs = g.out_height * g.out_width;
    for (u64 at = thread(); at < (u64)g.planes * outputs; at += threads()) {
        const u32 output = (u32)at % outputs;
        const E *plane = x + (u64)((u32)at / outputs) * g.height * g.width;
        const Range rows = pixels_of(g, output / g.out_width, g.height);
        each(at, plane, rows, pixels_of(g, output % g.out_width, g.width));
    }
}

// Calls `each` with the place of each pixel and the output of each window that holds it, in order,
// and adds the sum of what it returns to the pixel's gradient. A thread has a pixel to itself.
template <typename E, typename F>
__device__ void add_of_windows(const Window &g, E *x_gradient, F each) {
    const u32 pixels = g.height * g.width;
    for (u64 at = thread(); at < (u64)g.planes * pixels; at += threads()) {
        const u32 pixel = (u32)at % pixels;
        const u64 plane = (u64)((u32)at / pixels) * g.out_height * g.out_width;
        const Range rows = outputs_of(g, pixel / g.width, g.out_height);
        const Range columns = outputs_of(g, pixel % g.width, g.out_width);
        typename As<E>::Real sum = 0;
        for (u32 row = rows.first; row < rows.end; row++) {
            for (u32 column = columns.first; column < columns.end; column++) {
                sum += each(pixel, plane + row * g.out_width + column);
            }
        }
        add_to(x_gradient[at], sum);
    }
}

template <typename E>
__device__ typename As<E>::Real area(const Window &g) {
    return (typename As<E>::Real)((u64)g.kernel * g.kernel);
}

// y ← the largest pixel of each window, and `from` ← its number in the plane. Of equal pixels it is
// the first, and NaN counts as largest.
template <typename E>
__device__ void max_pool(const Window &g, const E *__restrict__ x, E *__restrict__ y, u32 *from) {
    each_window(g, x, [&](u64 at, const E *plane, Range rows, Range columns) {
        // A window holds at least one pixel.
        u32 best = rows.first * g.width + columns.first;
        for (u32 row = rows.first; row < rows.end; row++) {
            for (u32 column = columns.first; column < columns.end; column++) {
                const auto value = real(plane[row * g.width + column]);
                if (value > real(plane[best]) || value != value) best = row * g.width + column;
            }
        }
        y[at] = plane[best];
        if (from) from[at] = best;
    });
}

// Adds to each pixel the gradients of the windows that it is the largest of.
template <typename E>
__device__ void max_pool_gradient(const Window &g, const u32 *__restrict__ from,
                                  const E *__restrict__ upstream, E *__restrict__ x_gradient) {
    add_of_windows(g, x_gradient, [&](u32 pixel, u64 output) {
        return from[output] == pixel ? real(upstream[output]) : 0;
    });
}

// y ← the mean of each window, in which padding counts as zeros.
template <typename E>
__device__ void mean_pool(const Window &g, const E *__restrict__ x, E *__restrict__ y) {
    const auto all = area<E>(g);
    each_window(g, x, [&](u64 at, const E *plane, Range rows, Range columns) {
        typename As<E>::Real sum = 0;
        for (u32 row = rows.first; row < rows.end; row++) {
            for (u32 column = columns.first; column < columns.end; column++) {
                sum += real(plane[row * g.width + column]);
            }
        }
        put(y[at], sum / all);
    });
}

template <typename E>
__device__ void mean_pool_gradient(const Window &g, const E *__restrict__ upstream,
                                   E *__restrict__ x_gradient) {
    const auto all = area<E>(g);
    add_of_windows(g, x_gradient, [&](u32, u64 output) { return real(upstream[output]) / all; });
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void max_pool_##name(Window window, const E *x, E *y, u32 *from) {      \
        max_pool<E>(window, x, y, from);                                                          \
    }                                                                                             \
    extern "C" __global__ void max_pool_gradient_##name(Window window, const u32 *from,           \
                                                        const E *upstream, E *x_gradient) {       \
        max_pool_gradient<E>(window, from, upstream, x_gradient);                                 \
    }                                                                                             \
    extern "C" __global__ void mean_pool_##name(Window window, const E *x, E *y) {                \
        mean_pool<E>(window, x, y);                                                               \
    }                                                                                             \
    extern "C" __global__ void mean_pool_gradient_##name(Window window, const E *upstream,        \
                                                         E *x_gradient) {                         \
        mean_pool_gradient<E>(window, upstream, x_gradient);                                      \
    }

KINDS(KERNELS)
#undef KERNELS
