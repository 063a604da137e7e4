// Symmetric int8 quantization of activations: q = round(x / scale), scale = max |x| / 127, over a row or over each
// group of a row. Values that are not finite make their scale NaN or infinite, and so their outputs NaN.
#ifndef HEADRACE_QUANTIZE_H
#define HEADRACE_QUANTIZE_H

#include "dtype.h"

typedef int8_t v16c __attribute__((vector_size(16)));

// Largest magnitude in x [n], fp32, n a multiple of 16. Magnitudes compare as integers, a NaN as the largest.
HR_INLINE float max_magnitude(const float *x, int n) {
    v16u largest = {0};
    for (int i = 0; i < n; i += HR_LANES) largest = max_bits(largest, HR_LOAD(v16u, x + i) & 0x7fffffffu);
    uint32_t lanes[HR_LANES], result = 0;
    HR_STORE(lanes, largest);
    for (int i = 0; i < HR_LANES; i++) result = lanes[i] > result ? lanes[i] : result;
    return HR_LOAD(float, &result);
}

// Quantize x [n], n a multiple of 16, into q; returns the scale and the sum of q.
HR_INLINE float quantize_span(const float *x, int n, int8_t *q, int32_t *sum) {
    const v16f magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds, ties to even, into the low bits
    float scale = max_magnitude(x, n) / 127.0f;
    scale = scale < 1.17549435e-38f ? 1.17549435e-38f : scale;
    v16i total = {0};
    for (int i = 0; i < n; i += HR_LANES) {
        v16u bits = (v16u)(HR_LOAD(v16f, x + i) / scale + magic);
        v16i rounded = (v16i)(bits << 24) >> 24;
        total += rounded;
        HR_STORE(q + i, __builtin_convertvector(rounded, v16c));
    }
    int32_t lanes[HR_LANES];
    HR_STORE(lanes, total);
    *sum = 0;
    for (int i = 0; i < HR_LANES; i++) *sum += lanes[i];
    return scale;
}

// Row `row` of x [., n] as fp32, with zeros up to `padded`.
HR_INLINE void load_row(float *out, const void *x, int row, int n, int padded, int dtype) {
    const char *source = (const char *)x + (size_t)row * n * dtype_bytes(dtype);
    int i = 0;
    for (; i + HR_LANES <= n; i += HR_LANES) HR_STORE(out + i, load16(source, i, dtype));
    for (; i < padded; i += HR_LANES) HR_STORE(out + i, i < n ? load_tail(source, i, n - i, dtype) : splat(0.0f));
}

#endif
