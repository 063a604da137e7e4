// Vectors of sixteen 32-bit lanes, in the compiler's own vector extension, so that one source serves AVX-512, AVX2,
// NEON and plain C. Only the two dot products that hardware has instructions for are written per instruction set.
#ifndef HEADRACE_SIMD_H
#define HEADRACE_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define HR_INLINE static inline __attribute__((always_inline))
#define HR_LANES 16
#if defined(__clang__)
#define HR_UNROLL _Pragma("unroll")
#else
#define HR_UNROLL _Pragma("GCC unroll 64")
#endif

typedef float v16f __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef uint32_t v16u __attribute__((vector_size(64)));
typedef uint8_t v64b __attribute__((vector_size(64)));
typedef uint16_t v32h __attribute__((vector_size(64)));

#define HR_LOAD(type, p)                     \
    ({                                       \
        type loaded;                         \
        memcpy(&loaded, (p), sizeof loaded); \
        loaded;                              \
    })
#define HR_STORE(p, v)                      \
    do {                                    \
        __typeof__(v) stored = (v);         \
        memcpy((p), &stored, sizeof stored); \
    } while (0)

HR_INLINE v16f splat(float x) { return x - (v16f){0}; }
HR_INLINE v16u splat_bits(uint32_t x) { return x - (v16u){0}; }
HR_INLINE v16f to_float(v16i x) { return __builtin_convertvector(x, v16f); }
HR_INLINE uint32_t load_u32(const void *p) { return HR_LOAD(uint32_t, p); }

// Lane by lane, `a` where the mask (all ones or zero, as comparisons give) is set, else `b`.
HR_INLINE v16u select_bits(v16i mask, v16u a, v16u b) { return (a & (v16u)mask) | (b & ~(v16u)mask); }
HR_INLINE v16f select16(v16i mask, v16f a, v16f b) { return (v16f)select_bits(mask, (v16u)a, (v16u)b); }
#if defined(__AVX512F__)
HR_INLINE v16f max16(v16f a, v16f b) { return (v16f)_mm512_max_ps((__m512)a, (__m512)b); }
#else
HR_INLINE v16f max16(v16f a, v16f b) { return select16(a > b, a, b); }
#endif
HR_INLINE v16u max_bits(v16u a, v16u b) { return select_bits((v16i)(a > b), a, b); }

// Lanes of a (0 to 15) and b (16 to 31), by constant index.
#if defined(__clang__)
#define HR_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define HR_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (v16i){__VA_ARGS__})
#endif

// Sixteen pairs (a[from], b[from]), (a[from + 1], b[from + 1]) ... of 16-bit lanes.
#if defined(__clang__)
#define HR_SHUFFLE_HALVES(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define HR_SHUFFLE_HALVES(a, b, ...) __builtin_shuffle(a, b, (v32h){__VA_ARGS__})
#endif
#define HR_PAIR(i) (i), (i) + 32
#define HR_PAIRS4(i) HR_PAIR(i), HR_PAIR((i) + 1), HR_PAIR((i) + 2), HR_PAIR((i) + 3)
#define HR_ZIP_HALVES(a, b, from) \
    HR_SHUFFLE_HALVES(a, b, HR_PAIRS4(from), HR_PAIRS4((from) + 4), HR_PAIRS4((from) + 8), HR_PAIRS4((from) + 12))

#if defined(__AVX512F__)
HR_INLINE float sum_lanes(v16f v) { return _mm512_reduce_add_ps((__m512)v); }
HR_INLINE float max_lanes(v16f v) { return _mm512_reduce_max_ps((__m512)v); }
#else
HR_INLINE float sum_lanes(v16f v) {
    float sum = 0.0f;
    for (int i = 0; i < HR_LANES; i++) sum += v[i];
    return sum;
}
HR_INLINE float max_lanes(v16f v) {
    float most = v[0];
    for (int i = 1; i < HR_LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
}
#endif

// What has to be added to a signed weight byte to become the first operand of dot4.
#if defined(__AVX512VNNI__)
#define HR_BYTE_OFFSET 128
#else
#define HR_BYTE_OFFSET 0
#endif

// acc[i] += sum over j < 4 of w[4 i + j] * x[j], exactly; x is four signed bytes in -127..127.
// w holds unsigned bytes where HR_BYTE_OFFSET is 128, signed bytes in -127..127 otherwise.
#if defined(__AVX512VNNI__)
HR_INLINE v16i dot4(v16i acc, v64b w, uint32_t x) {
    return (v16i)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32((int)x));
}
#elif defined(__AVX2__)
// |w| * sign(x, w) keeps the pair sums of maddubs within 16 bits: 2 * 127 * 127 < 32768.
HR_INLINE __m256i dot4_half(__m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
HR_INLINE v16i dot4(v16i acc, v64b w, uint32_t x) {
    union {
        v64b bytes;
        v16i ints;
        __m256i half[2];
    } u = {.bytes = w};
    __m256i x4 = _mm256_set1_epi32((int)x);
    u.half[0] = dot4_half(u.half[0], x4);
    u.half[1] = dot4_half(u.half[1], x4);
    return acc + u.ints;
}
#elif defined(__ARM_FEATURE_DOTPROD)
HR_INLINE v16i dot4(v16i acc, v64b w, uint32_t x) {
    union {
        v64b bytes;
        int8x16_t part[4];
    } weights = {.bytes = w};
    union {
        v16i ints;
        int32x4_t part[4];
    } sums = {.ints = acc};
    int8x16_t x4 = vreinterpretq_s8_u32(vdupq_n_u32(x));
    for (int i = 0; i < 4; i++) sums.part[i] = vdotq_s32(sums.part[i], weights.part[i], x4);
    return sums.ints;
}
#else
HR_INLINE v16i dot4(v16i acc, v64b w, uint32_t x) {
    v16i bytes = (v16i)w;
    for (int j = 0; j < 4; j++) {
        v16i wj = (v16i)((v16u)bytes << (24 - 8 * j)) >> 24;
        acc += wj * (int32_t)(int8_t)(x >> (8 * j));
    }
    return acc;
}
#endif

// acc[i] += w[2 i] * x[0] + w[2 i + 1] * x[1], bf16 pairs, fp32 sums.
#if defined(__AVX512BF16__)
HR_INLINE v16f dot2(v16f acc, v16u w, uint32_t x) {
    return (v16f)_mm512_dpbf16_ps((__m512)acc, (__m512bh)w, (__m512bh)_mm512_set1_epi32((int)x));
}
#else
HR_INLINE v16f dot2(v16f acc, v16u w, uint32_t x) {
    v16u both = splat_bits(x);
    acc += (v16f)(w << 16) * (v16f)(both << 16);
    return acc + (v16f)(w & 0xffff0000u) * (v16f)(both & 0xffff0000u);
}
#endif

// e^x to 2 units in the last place; 0 below -87, so that masked scores (-infinity) vanish exactly.
HR_INLINE v16f exp16(v16f x) {
    v16f low = splat(-87.0f), high = splat(88.0f);
    v16i vanishes = x < low;
    x = select16(x > high, high, x);
    const v16f magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    v16f n = (x * 1.44269504f + magic) - magic;
    v16f r = x - n * 0.693359375f + n * 2.12194440e-4f;
    v16f p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    v16i exponent = __builtin_convertvector(n, v16i) + 127;
    v16f y = p * (v16f)((v16u)exponent << 23);
    return (v16f)((v16i)y & ~vanishes);
}

#endif
