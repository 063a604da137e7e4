// Activations come as fp32, bf16 or fp16; kernels compute in fp32. Conversions, sixteen lanes or a row at a time.
#ifndef HEADRACE_DTYPE_H
#define HEADRACE_DTYPE_H

#include "simd.h"

// The numbers that the Python side passes.
enum { HR_F32 = 0, HR_BF16 = 1, HR_F16 = 2 };

typedef uint16_t v16h __attribute__((vector_size(32)));

HR_INLINE size_t dtype_bytes(int dtype) { return dtype == HR_F32 ? 4 : 2; }

HR_INLINE v16u widen(v16h h) {
#if defined(__AVX512F__)
    return (v16u)_mm512_cvtepu16_epi32((__m256i)h);
#else
    return __builtin_convertvector(h, v16u);
#endif
}

HR_INLINE v16f bf16_to_float(v16h h) { return (v16f)(widen(h) << 16); }

// Round to nearest even; a NaN stays a NaN.
HR_INLINE v16h float_to_bf16(v16f x) {
#if defined(__AVX512BF16__)
    return (v16h)_mm512_cvtneps_pbh((__m512)x);
#else
    v16u bits = (v16u)x;
    v16u rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    v16u quiet = (bits >> 16) | 0x40;
    return __builtin_convertvector(select_bits(x != x, quiet, rounded), v16h);
#endif
}

HR_INLINE v16f f16_to_float(v16h h) {
#if defined(__AVX512F__)
    return (v16f)_mm512_cvtph_ps((__m256i)h);
#elif defined(__F16C__)
    union {
        v16h whole;
        __m128i half[2];
    } in = {.whole = h};
    union {
        v16f whole;
        __m256 half[2];
    } out = {.half = {_mm256_cvtph_ps(in.half[0]), _mm256_cvtph_ps(in.half[1])}};
    return out.whole;
#else
    // Exponent and mantissa moved into place and rescaled by 2^112, which also mends subnormals; infinities last.
    v16u bits = widen(h);
    v16f value = (v16f)((bits & 0x7fff) << 13) * 0x1p112f;
    v16i special = (bits & 0x7c00) == 0x7c00;
    v16u magnitude = (v16u)value | ((v16u)special & 0x7f800000u);
    return (v16f)(magnitude | ((bits & 0x8000) << 16));
#endif
}

HR_INLINE v16h float_to_f16(v16f x) {
#if defined(__AVX512F__)
    return (v16h)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
    union {
        v16f whole;
        __m256 half[2];
    } in = {.whole = x};
    union {
        v16h whole;
        __m128i half[2];
    } out = {.half = {_mm256_cvtps_ph(in.half[0], 0), _mm256_cvtps_ph(in.half[1], 0)}};
    return out.whole;
#else
    // Normal halves: drop 13 mantissa bits, to nearest even, and rebias the exponent. Subnormal halves: adding 0.5
    // makes the float unit round at 2^-24.
    v16u bits = (v16u)x, sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    v16u normal = (magnitude - 0x38000000u + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    v16u subnormal = (v16u)((v16f)magnitude + 0.5f) - 0x3f000000u;
    v16u infinite = splat_bits(0x7c00), quiet = splat_bits(0x7e00);
    v16u out = select_bits((v16i)(magnitude < 0x38800000u), subnormal, normal);
    out = select_bits((v16i)(magnitude >= 0x477ff000u), infinite, out);
    out = select_bits((v16i)(magnitude > 0x7f800000u), quiet, out);
    return __builtin_convertvector(out | sign, v16h);
#endif
}

// Sixteen values at element `i` of an array of `dtype`.
HR_INLINE v16f load16(const void *p, size_t i, int dtype) {
    if (dtype == HR_F32) return HR_LOAD(v16f, (const float *)p + i);
    v16h h = HR_LOAD(v16h, (const uint16_t *)p + i);
    return dtype == HR_BF16 ? bf16_to_float(h) : f16_to_float(h);
}

HR_INLINE void store16(void *p, size_t i, v16f x, int dtype) {
    if (dtype == HR_F32)
        HR_STORE((float *)p + i, x);
    else if (dtype == HR_BF16)
        HR_STORE((uint16_t *)p + i, float_to_bf16(x));
    else
        HR_STORE((uint16_t *)p + i, float_to_f16(x));
}

// The last n < 16 values of a row; absent lanes read as 0 and are not written.
HR_INLINE v16f load_tail(const void *p, size_t i, size_t n, int dtype) {
    char buffer[64] = {0};
    memcpy(buffer, (const char *)p + i * dtype_bytes(dtype), n * dtype_bytes(dtype));
    return load16(buffer, 0, dtype);
}

HR_INLINE void store_tail(void *p, size_t i, v16f x, size_t n, int dtype) {
    char buffer[64];
    store16(buffer, 0, x, dtype);
    memcpy((char *)p + i * dtype_bytes(dtype), buffer, n * dtype_bytes(dtype));
}

HR_INLINE v16f load_upto16(const void *p, size_t i, size_t n, int dtype) {
    return n - i >= HR_LANES ? load16(p, i, dtype) : load_tail(p, i, n - i, dtype);
}

HR_INLINE void store_upto16(void *p, size_t i, v16f x, size_t n, int dtype) {
    if (n - i >= HR_LANES)
        store16(p, i, x, dtype);
    else
        store_tail(p, i, x, n - i, dtype);
}

#endif
