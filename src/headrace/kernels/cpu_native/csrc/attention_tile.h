// One tile of keys met by one tile of queries: loading both, scores, weights, weighted sum. See attention.c.
//
// Everything is held in 32-bit words: pairs of bf16 when queries and cache are bf16, else fp32. Keys are transposed on
// the way in, so that sixteen keys' scores are summed side by side.
#ifndef HEADRACE_ATTENTION_TILE_H
#define HEADRACE_ATTENTION_TILE_H

#include <math.h>

#include "linear.h"

#define KEYS 32
#define KEY_VECTORS (KEYS / HR_LANES)
#define HR_RANGE 512
#define MOST_QUERY_ROWS 64
#define HR_MOST_DIM 1024

typedef struct {
    int row, kv_head;
    int first_token, tokens;    // on the flat axis
    int first_position;         // of the first token
    int first_range, end_range;
    int partial;                // where the merged pass finds the result, or -1: write the output
} attend_task;

typedef struct {
    const void *q, *k_cache, *v_cache;
    void *out;
    const int32_t *query_start, *context_lens, *block_tables;
    int rows, table_stride, heads, kv_heads, head_dim, block_size, dtype, cache_dtype, window;
    float scale;
    int pairs, group;            // bf16 pairs; query heads a key head
    int words, padded_dim;       // of a query or key; of a value, in lanes
    int tokens_per_tile;
    attend_task *tasks;
    int num_tasks, num_partials;
    float *partials;
} attend_job;

// Running softmax of up to MOST_QUERY_ROWS rows: values [rows, padded_dim], not yet divided by their weights' sum.
typedef struct {
    float *values, *largest, *sum;
} softmax_state;

typedef struct {
    uint32_t *q;        // [rows, words]
    uint32_t *keys;     // [words, KEYS]
    uint32_t *values;   // [KEYS or KEYS / 2, padded_dim]
    uint32_t *weights;  // [rows, KEYS or KEYS / 2]
    float *scores;      // [rows, KEYS]
    v16f *sums;         // [rows], weights' sums by lane
    softmax_state range, total;
} attend_local;

HR_INLINE int state_floats(const attend_job *job) { return MOST_QUERY_ROWS * (job->padded_dim + 2); }

static softmax_state state_at(const attend_job *job, float *memory) {
    float *largest = memory + MOST_QUERY_ROWS * job->padded_dim;
    return (softmax_state){memory, largest, largest + MOST_QUERY_ROWS};
}

// Every part is a multiple of 64 bytes.
static size_t local_words(const attend_job *job) {
    size_t tiles = (size_t)MOST_QUERY_ROWS * (job->words + 2 * KEYS + HR_LANES);
    return tiles + (size_t)KEYS * (job->words + job->padded_dim) + 2 * (size_t)state_floats(job);
}

static attend_local local_at(const attend_job *job, uint32_t *memory) {
    attend_local local;
    local.range = state_at(job, (float *)memory);
    local.total = state_at(job, (float *)memory + state_floats(job));
    local.q = memory + 2 * state_floats(job);
    local.keys = local.q + MOST_QUERY_ROWS * job->words;
    local.values = local.keys + KEYS * job->words;
    local.weights = local.values + KEYS * job->padded_dim;
    local.scores = (float *)local.weights + MOST_QUERY_ROWS * KEYS;
    local.sums = (v16f *)(local.scores + MOST_QUERY_ROWS * KEYS);
    return local;
}

// Sixteen words of a vector of `dim` elements, zeros past its end.
HR_INLINE v16u load_words(const void *x, int word, int dim, int dtype, int pairs) {
    if (!pairs) return (v16u)load_upto16(x, word, dim, dtype);
    int left = dim / 2 - word;
    if (left >= HR_LANES) return HR_LOAD(v16u, (const uint32_t *)x + word);
    v16u words = {0};
    memcpy(&words, (const uint32_t *)x + word, left * 4);
    return words;
}

// x . w in bf16 pairs or in fp32, added to acc lane by lane.
HR_INLINE v16f mac(v16f acc, v16u w, uint32_t x, int pairs) {
    return pairs ? dot2(acc, w, x) : acc + (v16f)w * (v16f)splat_bits(x);
}

// Read sixteen words from each of sixteen places and write them as columns, `stride` words from one row to the next.
#if defined(__AVX512F__)
// Four words of every fourth place a vector: the load ports gather them, and two shuffles a vector do the rest.
HR_INLINE v16u load_quads(const char *const places[HR_LANES], int quad, int first) {
    __m512i q = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)places[first] + quad));
    q = _mm512_mask_broadcast_i32x4(q, 0x00f0, _mm_loadu_si128((const __m128i *)places[first + 4] + quad));
    q = _mm512_mask_broadcast_i32x4(q, 0x0f00, _mm_loadu_si128((const __m128i *)places[first + 8] + quad));
    return (v16u)_mm512_mask_broadcast_i32x4(q, 0xf000, _mm_loadu_si128((const __m128i *)places[first + 12] + quad));
}

HR_INLINE void load_columns(const char *const places[HR_LANES], uint32_t *out, int stride) {
    HR_UNROLL for (int quad = 0; quad < 4; quad++) {
        __m512i q[4];
        HR_UNROLL for (int i = 0; i < 4; i++) q[i] = (__m512i)load_quads(places, quad, i);
        __m512i low01 = _mm512_unpacklo_epi32(q[0], q[1]), low23 = _mm512_unpacklo_epi32(q[2], q[3]);
        __m512i high01 = _mm512_unpackhi_epi32(q[0], q[1]), high23 = _mm512_unpackhi_epi32(q[2], q[3]);
        uint32_t *to = out + 4 * quad * stride;
        HR_STORE(to, _mm512_unpacklo_epi64(low01, low23));
        HR_STORE(to + stride, _mm512_unpackhi_epi64(low01, low23));
        HR_STORE(to + 2 * stride, _mm512_unpacklo_epi64(high01, high23));
        HR_STORE(to + 3 * stride, _mm512_unpackhi_epi64(high01, high23));
    }
}
#else
HR_INLINE void load_columns(const char *const places[HR_LANES], uint32_t *out, int stride) {
    for (int i = 0; i < HR_LANES; i++)
        for (int j = 0; j < HR_LANES; j++) out[i * stride + j] = HR_LOAD(uint32_t, places[j] + 4 * i);
}
#endif

// Where the keys and values of a tile are.
typedef struct {
    const char *keys[KEYS], *values[KEYS];
} tile_places;

// Keys outside [low, high) were never written, are out of the window or have been given away: they read as zeros.
static void find_tile(const attend_job *job, const attend_task *task, int tile, tile_places *places) {
    static const float zeros[HR_MOST_DIM];
    const int high = min_int(task->first_position + task->tokens - tile, KEYS);
    const int low = job->window ? task->first_position - job->window + 1 - tile : 0;
    const int32_t *table = job->block_tables + (size_t)task->row * job->table_stride;
    const size_t vector = job->head_dim * dtype_bytes(job->cache_dtype);
    int j = 0;
    for (; j < min_int(low, KEYS); j++) places->keys[j] = places->values[j] = (const char *)zeros;
    while (j < high) {
        const int block = (tile + j) / job->block_size, offset = (tile + j) % job->block_size;
        const int end = min_int(j + job->block_size - offset, high);
        size_t head = (size_t)table[block] * job->kv_heads + task->kv_head;
        size_t place = (head * job->block_size + offset) * vector;
        for (; j < end; j++, place += vector) {
            places->keys[j] = (const char *)job->k_cache + place;
            places->values[j] = (const char *)job->v_cache + place;
        }
    }
    for (; j < KEYS; j++) places->keys[j] = places->values[j] = (const char *)zeros;
}

// Begins to fetch some of a tile's vectors into L2, where more can be under way at once than in L1.
HR_INLINE void fetch(const attend_job *job, const char *const *vectors, int from, int to) {
    const size_t bytes = job->head_dim * dtype_bytes(job->cache_dtype);
    for (int j = from; j < to; j++)
        for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(vectors[j] + line, 0, 2);
}

HR_INLINE void load_key_block(const attend_job *job, const char *const keys[HR_LANES], int word, uint32_t *out,
                              int pairs, int whole) {
    v16u words[HR_LANES];
    const char *places[HR_LANES];
    HR_UNROLL for (int j = 0; j < HR_LANES; j++) {
        if (!whole) words[j] = load_words(keys[j], word, job->head_dim, job->cache_dtype, pairs);
        places[j] = whole ? keys[j] + 4 * word : (const char *)&words[j];
    }
    load_columns(places, out, KEYS);
}

HR_INLINE void load_keys(const attend_job *job, const char *const keys[KEYS], uint32_t *out, int pairs) {
    const int are_words = pairs || job->cache_dtype == HR_F32;
    const int whole = are_words ? job->head_dim / (pairs ? 2 : 1) / HR_LANES * HR_LANES : 0;
    for (int part = 0; part < KEY_VECTORS; part++) {
        int word = 0;
        for (; word < whole; word += HR_LANES)
            load_key_block(job, keys + part * HR_LANES, word, out + word * KEYS + part * HR_LANES, pairs, 1);
        for (; word < job->words; word += HR_LANES)
            load_key_block(job, keys + part * HR_LANES, word, out + word * KEYS + part * HR_LANES, pairs, 0);
    }
}

// Values of two keys, pair by pair: the sixteen from element `i` on, or the thirty-two, as two vectors.
HR_INLINE void load_value_pairs(const char *a, const char *b, int i, int d, uint32_t *out) {
    if (d - i >= 2 * HR_LANES) {
        v32h even = HR_LOAD(v32h, (const uint16_t *)a + i), odd = HR_LOAD(v32h, (const uint16_t *)b + i);
        HR_STORE(out, HR_ZIP_HALVES(even, odd, 0));
        HR_STORE(out + HR_LANES, HR_ZIP_HALVES(even, odd, 16));
    } else {
        v16u even = (v16u)load_upto16(a, i, d, HR_BF16), odd = (v16u)load_upto16(b, i, d, HR_BF16);
        HR_STORE(out, (even >> 16) | odd);
    }
}

HR_INLINE void load_values(const attend_job *job, const char *const values[KEYS], uint32_t *out, int pairs) {
    const int d = job->head_dim, step = pairs ? 2 : 1;
    for (int j = 0; j < KEYS; j += step, out += job->padded_dim) {
        for (int i = 0; pairs && i < d; i += d - i >= 2 * HR_LANES ? 2 * HR_LANES : HR_LANES)
            load_value_pairs(values[j], values[j + 1], i, d, out + i);
        for (int i = 0; !pairs && i < d; i += HR_LANES)
            HR_STORE(out + i, load_upto16(values[j], i, d, job->cache_dtype));
    }
}

static void load_queries(const attend_job *job, const attend_task *task, uint32_t *out) {
    size_t bytes = job->head_dim * dtype_bytes(job->dtype);
    for (int token = 0; token < task->tokens; token++) {
        size_t first = (size_t)(task->first_token + token) * job->heads + (size_t)task->kv_head * job->group;
        for (int head = 0; head < job->group; head++, out += job->words)
            for (int word = 0; word < job->words; word += HR_LANES)
                HR_STORE(out + word, load_words((const char *)job->q + (first + head) * bytes, word, job->head_dim,
                                                job->dtype, job->pairs));
    }
}

HR_INLINE void score_rows(const attend_job *job, const attend_local *local, int rows, int row, int pairs) {
    const uint32_t *q = local->q + (size_t)row * job->words;
    v16f sum[8][KEY_VECTORS];
    HR_UNROLL for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = splat(0.0f);
    for (int word = 0; word < job->words; word++) {
        v16u k0 = HR_LOAD(v16u, local->keys + word * KEYS), k1 = HR_LOAD(v16u, local->keys + word * KEYS + HR_LANES);
        HR_UNROLL for (int r = 0; r < rows; r++) {
            sum[r][0] = mac(sum[r][0], k0, q[r * job->words + word], pairs);
            sum[r][1] = mac(sum[r][1], k1, q[r * job->words + word], pairs);
        }
    }
    HR_UNROLL for (int r = 0; r < rows; r++) {
        HR_STORE(local->scores + (row + r) * KEYS, sum[r][0] * job->scale);
        HR_STORE(local->scores + (row + r) * KEYS + HR_LANES, sum[r][1] * job->scale);
    }
}

// Scores of keys that a query at `position` does not see become -infinity.
HR_INLINE void mask_row(const attend_job *job, float *scores, int tile, int position) {
    int lowest = job->window ? position - job->window + 1 : 0;
    if (tile >= lowest && tile + KEYS - 1 <= position) return;
    for (int j = 0; j < KEYS; j++)
        if (tile + j < lowest || tile + j > position) scores[j] = -INFINITY;
}

// Turn a row's scores into weights against the new maximum, and bring what was summed so far down to it.
HR_INLINE void weigh_row(const attend_job *job, const attend_local *local, int row, int pairs) {
    const float *scores = local->scores + row * KEYS;
    v16f s0 = HR_LOAD(v16f, scores), s1 = HR_LOAD(v16f, scores + HR_LANES);
    float before = local->range.largest[row], now = max_lanes(max16(s0, s1));
    now = now > before ? now : before;
    float base = now == -INFINITY ? 0.0f : now;
    v16f w0 = exp16(s0 - base), w1 = exp16(s1 - base);
    if (now != before) {
        v16f shrink = exp16(splat(before - base));
        float *values = local->range.values + row * job->padded_dim;
        for (int i = 0; i < job->padded_dim; i += HR_LANES) HR_STORE(values + i, HR_LOAD(v16f, values + i) * shrink);
        local->sums[row] *= shrink;
        local->range.largest[row] = now;
    }
    local->sums[row] += w0 + w1;
    if (pairs) {
        HR_STORE((uint16_t *)local->weights + row * KEYS, float_to_bf16(w0));
        HR_STORE((uint16_t *)local->weights + row * KEYS + HR_LANES, float_to_bf16(w1));
    } else {
        HR_STORE(local->weights + row * KEYS, w0);
        HR_STORE(local->weights + row * KEYS + HR_LANES, w1);
    }
}

// Add weights x values for `rows` rows and `vectors` vectors of the head dimension.
HR_INLINE void add_block(const attend_job *job, const attend_local *local, int rows, int row, int i, int vectors,
                         int pairs) {
    const int steps = pairs ? KEYS / 2 : KEYS;
    const uint32_t *weights = local->weights + row * steps;
    float *out = local->range.values + row * job->padded_dim + i;
    v16f sum[4][4];
    HR_UNROLL for (int r = 0; r < rows; r++)
        HR_UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = HR_LOAD(v16f, out + r * job->padded_dim + v * HR_LANES);
    for (int j = 0; j < steps; j++) {
        const uint32_t *values = local->values + j * job->padded_dim + i;
        HR_UNROLL for (int v = 0; v < vectors; v++) {
            v16u value = HR_LOAD(v16u, values + v * HR_LANES);
            HR_UNROLL for (int r = 0; r < rows; r++) sum[r][v] = mac(sum[r][v], value, weights[r * steps + j], pairs);
        }
    }
    HR_UNROLL for (int r = 0; r < rows; r++)
        HR_UNROLL for (int v = 0; v < vectors; v++) HR_STORE(out + r * job->padded_dim + v * HR_LANES, sum[r][v]);
}

HR_INLINE void add_rows(const attend_job *job, const attend_local *local, int rows, int row, int pairs) {
    int i = 0;
    for (; i + 4 * HR_LANES <= job->padded_dim; i += 4 * HR_LANES) add_block(job, local, rows, row, i, 4, pairs);
    for (; i < job->padded_dim; i += HR_LANES) add_block(job, local, rows, row, i, 1, pairs);
}

// While one tile is computed with, the next is fetched a part at a time: all at once they would wait for each other.
HR_INLINE void attend_tile(const attend_job *job, const attend_task *task, const attend_local *local, int tile,
                           const tile_places *places, const tile_places *next, int pairs) {
    const int rows = task->tokens * job->group;
    load_keys(job, places->keys, local->keys, pairs);
    fetch(job, next->keys, 0, KEYS / 2);
    load_values(job, places->values, local->values, pairs);
    fetch(job, next->keys, KEYS / 2, KEYS);
    int row = 0;
    for (; row + 8 <= rows; row += 8) score_rows(job, local, 8, row, pairs);
    for (; row + 3 <= rows; row += 3) score_rows(job, local, 3, row, pairs);
    for (; row < rows; row++) score_rows(job, local, 1, row, pairs);
    fetch(job, next->values, 0, KEYS / 2);
    for (row = 0; row < rows; row++) {
        mask_row(job, local->scores + row * KEYS, tile, task->first_position + row / job->group);
        weigh_row(job, local, row, pairs);
    }
    fetch(job, next->values, KEYS / 2, KEYS);
    for (row = 0; row + 4 <= rows; row += 4) add_rows(job, local, 4, row, pairs);
    for (; row + 3 <= rows; row += 3) add_rows(job, local, 3, row, pairs);
    for (; row < rows; row++) add_rows(job, local, 1, row, pairs);
}

#endif
