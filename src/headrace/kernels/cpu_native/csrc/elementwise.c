// What stands between the matrix products: norms, the gated activation, rotary embedding with the cache write.
// Computed in fp32, rounded once. A task is some rows; few rows are not worth a second thread.
#include <math.h>

#include "linear.h"

#define TASK_ELEMENTS 8192

HR_INLINE int rows_per_task(int row_elements) {
    return row_elements < TASK_ELEMENTS ? TASK_ELEMENTS / row_elements : 1;
}

HR_INLINE const char *row_of(const void *p, int row, int n, int dtype) {
    return (const char *)p + (size_t)row * n * dtype_bytes(dtype);
}

typedef struct {
    const void *x, *weight;
    void *residual, *y;
    int m, n, dtype, weight_dtype, rows;
    float eps;
} norm_job;

// residual += x, in fp32; returns the row's sum.
HR_INLINE const float *add_row(const norm_job *job, int row, int dtype) {
    const char *x = row_of(job->x, row, job->n, dtype);
    float *sum = (float *)job->residual + (size_t)row * job->n;
    for (int i = 0; i < job->n; i += HR_LANES)
        store_upto16(sum, i, load_upto16(sum, i, job->n, HR_F32) + load_upto16(x, i, job->n, dtype), job->n, HR_F32);
    return sum;
}

HR_INLINE float inverse_rms(const void *x, int n, int dtype, float eps) {
    v16f squares = splat(0.0f);
    for (int i = 0; i < n; i += HR_LANES) {
        v16f value = load_upto16(x, i, n, dtype);
        squares += value * value;
    }
    return 1.0f / sqrtf(sum_lanes(squares) / (float)n + eps);
}

// y = x times its inverse rms and the weight; x has a dtype of its own.
HR_INLINE void norm_row(const norm_job *job, int row, const void *x, int x_dtype, int dtype, int weight_dtype) {
    float factor = inverse_rms(x, job->n, x_dtype, job->eps);
    char *y = (char *)row_of(job->y, row, job->n, dtype);
    for (int i = 0; i < job->n; i += HR_LANES) {
        v16f value = load_upto16(x, i, job->n, x_dtype) * factor * load_upto16(job->weight, i, job->n, weight_dtype);
        store_upto16(y, i, value, job->n, dtype);
    }
}

HR_INLINE void norm_rows(const norm_job *job, int task, int dtype, int weight_dtype) {
    int end = min_int((task + 1) * job->rows, job->m);
    for (int row = task * job->rows; row < end; row++) {
        if (job->residual)
            norm_row(job, row, add_row(job, row, dtype), HR_F32, dtype, weight_dtype);
        else
            norm_row(job, row, row_of(job->x, row, job->n, dtype), dtype, dtype, weight_dtype);
    }
}

static void norm_task(void *argument, int task, int thread) {
    (void)thread;
    const norm_job *job = argument;
    if (job->dtype == HR_BF16 && job->weight_dtype == HR_BF16)
        norm_rows(job, task, HR_BF16, HR_BF16);
    else
        norm_rows(job, task, job->dtype, job->weight_dtype);
}

// y = rms_norm(x), or, with a residual, residual += x and y = rms_norm(residual), the residual
// in fp32; [m, n].
void hr_rms_norm(hr_pool *pool, const void *x, void *residual, const void *weight, void *y, int m, int n, int dtype,
                 int weight_dtype, float eps) {
    norm_job job = {x, weight, residual, y, m, n, dtype, weight_dtype, rows_per_task(n), eps};
    hr_begin(pool);
    hr_run(pool, norm_task, &job, (m + job.rows - 1) / job.rows);
    hr_end(pool);
}

typedef struct {
    const void *gate_up;
    void *y;
    int m, n, dtype, rows;
} silu_job;

HR_INLINE void silu_rows(const silu_job *job, int task, int dtype) {
    int end = min_int((task + 1) * job->rows, job->m);
    for (int row = task * job->rows; row < end; row++) {
        const char *gate = row_of(job->gate_up, 2 * row, job->n, dtype);
        const char *up = row_of(job->gate_up, 2 * row + 1, job->n, dtype);
        char *y = (char *)row_of(job->y, row, job->n, dtype);
        for (int i = 0; i < job->n; i += HR_LANES) {
            v16f g = load_upto16(gate, i, job->n, dtype), u = load_upto16(up, i, job->n, dtype);
            store_upto16(y, i, g / (exp16(-g) + 1.0f) * u, job->n, dtype);
        }
    }
}

static void silu_task(void *argument, int task, int thread) {
    (void)thread;
    const silu_job *job = argument;
    if (job->dtype == HR_BF16)
        silu_rows(job, task, HR_BF16);
    else
        silu_rows(job, task, job->dtype);
}

// gate_up [m, 2 n] to silu(gate) * up [m, n].
void hr_silu_and_mul(hr_pool *pool, const void *gate_up, void *y, int m, int n, int dtype) {
    silu_job job = {gate_up, y, m, n, dtype, rows_per_task(n)};
    hr_begin(pool);
    hr_run(pool, silu_task, &job, (m + job.rows - 1) / job.rows);
    hr_end(pool);
}

typedef struct {
    const void *qkv, *q_norm, *k_norm;
    void *q, *k_cache, *v_cache;
    const float *cos_sin;
    const int64_t *positions, *slots;
    int tokens, heads, kv_heads, head_dim, block_size, dtype, cache_dtype, norm_dtype, rows;
    float eps;
} rope_job;

// Norm (if there is a weight) and rotate one head: pairs (x[i], x[i + D / 2]).
HR_INLINE void rope_head(const rope_job *job, const char *x, const void *norm, const float *angles, char *out,
                         int dtype, int out_dtype) {
    const int half = job->head_dim / 2;
    const char *second = x + half * dtype_bytes(dtype);
    const char *second_norm = (const char *)norm + half * dtype_bytes(job->norm_dtype);
    float factor = norm ? inverse_rms(x, job->head_dim, dtype, job->eps) : 1.0f;
    for (int i = 0; i < half; i += HR_LANES) {
        v16f a = load_upto16(x, i, half, dtype), b = load_upto16(second, i, half, dtype);
        v16f cosine = load_upto16(angles, i, half, HR_F32), sine = load_upto16(angles + half, i, half, HR_F32);
        if (norm) {
            a = a * factor * load_upto16(norm, i, half, job->norm_dtype);
            b = b * factor * load_upto16(second_norm, i, half, job->norm_dtype);
        }
        store_upto16(out, i, a * cosine - b * sine, half, out_dtype);
        store_upto16(out + half * dtype_bytes(out_dtype), i, b * cosine + a * sine, half, out_dtype);
    }
}

HR_INLINE void copy_head(const char *x, char *out, int n, int dtype, int out_dtype) {
    for (int i = 0; i < n; i += HR_LANES) store_upto16(out, i, load_upto16(x, i, n, dtype), n, out_dtype);
}

HR_INLINE void rope_token(const rope_job *job, int token, int dtype, int cache_dtype) {
    const int d = job->head_dim;
    const size_t head_bytes = d * dtype_bytes(dtype);
    const char *x = row_of(job->qkv, token, (job->heads + 2 * job->kv_heads) * d, dtype);
    const float *angles = job->cos_sin + job->positions[token] * d;
    char *q = (char *)row_of(job->q, token, job->heads * d, dtype);
    for (int h = 0; h < job->heads; h++, x += head_bytes)
        rope_head(job, x, job->q_norm, angles, q + h * head_bytes, dtype, dtype);
    size_t block = job->slots[token] / job->block_size, offset = job->slots[token] % job->block_size;
    for (int h = 0; h < job->kv_heads; h++, x += head_bytes) {
        size_t place = ((block * job->kv_heads + h) * job->block_size + offset) * d * dtype_bytes(cache_dtype);
        rope_head(job, x, job->k_norm, angles, (char *)job->k_cache + place, dtype, cache_dtype);
        copy_head(x + job->kv_heads * head_bytes, (char *)job->v_cache + place, d, dtype, cache_dtype);
    }
}

static void rope_task(void *argument, int task, int thread) {
    (void)thread;
    const rope_job *job = argument;
    int end = min_int((task + 1) * job->rows, job->tokens);
    for (int token = task * job->rows; token < end; token++) {
        if (job->dtype == HR_BF16 && job->cache_dtype == HR_BF16)
            rope_token(job, token, HR_BF16, HR_BF16);
        else
            rope_token(job, token, job->dtype, job->cache_dtype);
    }
}

void hr_rope_and_cache(hr_pool *pool, const void *qkv, const void *q_norm, const void *k_norm, void *q, void *k_cache,
                       void *v_cache, const float *cos_sin, const int64_t *positions, const int64_t *slots, int tokens,
                       int heads, int kv_heads, int head_dim, int block_size, int dtype, int cache_dtype,
                       int norm_dtype, float eps) {
    rope_job job = {qkv, q_norm, k_norm, q, k_cache, v_cache, cos_sin, positions, slots, tokens, heads, kv_heads,
                    head_dim, block_size, dtype, cache_dtype, norm_dtype,
                    rows_per_task((heads + 2 * kv_heads) * head_dim), eps};
    hr_begin(pool);
    hr_run(pool, rope_task, &job, (tokens + job.rows - 1) / job.rows);
    hr_end(pool);
}
