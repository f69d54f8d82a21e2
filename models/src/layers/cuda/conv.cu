// Convolution: the windows of images become the columns of a matrix, and columns are added back to
// images.

// The part of a convolution that a launch works on: `rows` rows of the output, from `first_row` on,
// of `images` images. The addresses are those of its first image.
struct Part {
    u32 images, channels, height, width;
    u32 kernel, stride, padding, dilation;
    u32 out_width, first_row, rows;
    // The rows of an input image that these outputs read. They begin at `top`.
    u32 top, lines;
};

// columns[channel, y, x][image, row, column] ← the pixel that tap (y, x) of this output reads, or 0
// in the padding. With a kernel of one pixel: channel by channel in place of image by image.
template <typename E>
__device__ void im2col(const Part &g, const E *__restrict__ x, E *__restrict__ columns) {
    const u32 outputs = g.rows * g.out_width, count = g.images * outputs;
    for (u64 at = thread(); at < count; at += threads()) {
        const u32 image = (u32)at / outputs, output = (u32)at % outputs;
        const u32 row = output / g.out_width + g.first_row, column = output % g.out_width;
        for (u32 channel = blockIdx.y; channel < g.channels; channel += gridDim.y) {
            const E *plane = x + ((u64)image * g.channels + channel) * g.height * g.width;
            E *to = columns + (u64)channel * g.kernel * g.kernel * count + at;
            for (u32 ky = 0; ky < g.kernel; ky++) {
                // The number is unsigned: what would be below 0 is far above the height.
                const u32 down = row * g.stride + ky * g.dilation - g.padding;
                for (u32 kx = 0; kx < g.kernel; kx++) {
                    const u32 along = column * g.stride + kx * g.dilation - g.padding;
                    const bool inside = down < g.height && along < g.width;
                    *to = inside ? plane[(u64)down * g.width + along] : E();
                    to += count;
                }
            }
        }
    }
}

// Divides a number by the stride: the whole part, and whether the rest is 0. Without strides there
// is nothing to divide.
template <bool STRIDES>
__device__ bool divided(u32 number, u32 stride, u32 *whole) {
    *whole = STRIDES ? number / stride : number;
    return !STRIDES || *whole * stride == number;
}

// The transpose of im2col: adds to each pixel the elements of the columns that were read from it. A
// thread has a pixel to itself, and takes its taps in order.
template <typename E, bool STRIDES>
__device__ void col2im(const Part &g, const E *__restrict__ columns, E *__restrict__ x) {
    const u32 outputs = g.rows * g.out_width, count = g.images * outputs;
    const u32 pixels = g.lines * g.width;
    for (u64 at = thread(); at < (u64)g.images * pixels; at += threads()) {
        const u32 image = (u32)at / pixels, pixel = (u32)at % pixels;
        const u32 line = pixel / g.width + g.top, place = pixel % g.width;
        for (u32 channel = blockIdx.y; channel < g.channels; channel += gridDim.y) {
            const E *of_tap = columns + (u64)channel * g.kernel * g.kernel * count;
            typename As<E>::Real sum = 0;
            for (u32 ky = 0; ky < g.kernel; ky++, of_tap += (u64)g.kernel * count) {
                if (line + g.padding < ky * g.dilation) break;
                const u32 down = line + g.padding - ky * g.dilation;
                u32 row;
                if (!divided<STRIDES>(down, g.stride, &row)) continue;
                // The number is unsigned: what would be below 0 is far above the number of rows.
                row -= g.first_row;
                if (row >= g.rows) continue;
                const E *of_row = of_tap + image * outputs + row * g.out_width;
                for (u32 kx = 0; kx < g.kernel; kx++, of_row += count) {
                    if (place + g.padding < kx * g.dilation) break;
                    const u32 along = place + g.padding - kx * g.dilation;
                    u32 column;
                    if (!divided<STRIDES>(along, g.stride, &column)) continue;
                    if (column < g.out_width) sum += real(of_row[column]);
                }
            }
            const u64 plane = ((u64)image * g.channels + channel) * g.height;
            add_to(x[(plane + line) * g.width + place], sum);
        }
    }
}

// to[i] ← to[i] + Σ parts[part][i], part by part.
template <typename E>
__device__ void add_parts(E *__restrict__ to, const E *__restrict__ parts, u64 len, u32 count) {
    for (u64 at = thread(); at < len; at += threads()) {
        double sum = 0;
        for (u32 part = 0; part < count; part++) sum += wide(parts[part * len + at]);
        add_to(to[at], (typename As<E>::Real)sum);
    }
}

// Every pixel of a channel is its bias.
template <typename E>
__device__ void fill_planes(Planes planes, const E *bias, E *y) {
    const E value = bias[channel_of_block()];
    walk(planes, [&](u64 at) { y[at] = value; });
}

// The sum of the block's share of a channel.
template <typename E>
__device__ void sum_planes(Planes planes, const E *x, Sums<1> *parts) {
    Sums<1> sum = {};
    walk(planes, [&](u64 at) { sum.of[0] += wide(x[at]); });
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) parts[channel_of_block() * gridDim.x + blockIdx.x] = sum;
}

// to[channel] ← to[channel] + the sum of the channel's `shares` parts, a thread a channel.
template <typename E>
__device__ void add_sums(const Sums<1> *parts, E *to, u32 channels, u32 shares) {
    for (u64 channel = thread(); channel < channels; channel += threads()) {
        double sum = 0;
        for (u32 share = 0; share < shares; share++) sum += parts[channel * shares + share].of[0];
        add_to(to[channel], (typename As<E>::Real)sum);
    }
}

#define KERNELS(E, name)                                                                          \
    extern "C" __global__ void im2col_##name(Part part, const E *x, E *columns) {                 \
        im2col<E>(part, x, columns);                                                              \
    }                                                                                             \
    extern "C" __global__ void col2im_##name(Part part, const E *columns, E *x) {                 \
        if (part.stride == 1) col2im<E, false>(part, columns, x);                                 \
        else col2im<E, true>(part, columns, x);                                                   \
    }                                                                                             \
    extern "C" __global__ void add_parts_##name(E *to, const E *parts, u64 len, u32 count) {      \
        add_parts<E>(to, parts, len, count);                                                      \
    }                                                                                             \
    extern "C" __global__ void fill_planes_##name(Planes planes, const E *bias, E *y) {           \
        fill_planes<E>(planes, bias, y);                                                          \
    }                                                                                             \
    extern "C" __global__ void sum_planes_##name(Planes planes, const E *x, Sums<1> *parts) {     \
        sum_planes<E>(planes, x, parts);                                                          \
    }                                                                                             \
    extern "C" __global__ void add_sums_##name(const Sums<1> *parts, E *to, u32 channels,         \
                                               u32 shares) {                                      \
        add_sums<E>(parts, to, channels, shares);                                                 \
    }

KINDS(KERNELS)
#undef KERNELS
