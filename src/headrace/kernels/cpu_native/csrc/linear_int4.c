// Linear layer on 4-bit weights in groups along k, w = q * scale + minimum. Activations are quantized to int8 a group
// at a time, as llama.cpp does, so that a group's product is one integer sum, scaled twice, and its minimum meets the
// group's sum of activations.
// A tile of the packed weight is, group by group: [group / 4][HR_TILE / 2][4] bytes (output i in the low nibble, output
// i + 16 in the high one), then HR_TILE scales, then HR_TILE minima, fp16 where that is exact, else fp32.
#include "linear.h"
#include "quantize.h"

// Each row has its group's integer sums and its running sums; the latter may leave the registers once a group.
#define MOST_ROWS (HR_MAX_ROWS * 2 / 3)

typedef struct {
    hr_linear_call call;
    hr_grid grid;
    const uint8_t *weight;
    int group_size, groups, scale_dtype;
    int8_t *q;     // [m, k]
    float *scale;  // [m, groups]
    float *sum;    // [m, groups], scale * sum of q: what a minimum is multiplied with
} int4_job;

HR_INLINE size_t group_bytes(int group_size, int scale_dtype) {
    return (size_t)HR_TILE / 2 * group_size + 2 * HR_TILE * dtype_bytes(scale_dtype);
}

size_t hr_int4_packed_bytes(int n, int k, int group_size, int scale_dtype) {
    return (size_t)round_up(n, HR_TILE) / HR_TILE * (k / group_size) * group_bytes(group_size, scale_dtype);
}

static void pack_group(const uint8_t *q, int group_size, int lane, uint8_t *out) {
    int shift = lane / HR_LANES * 4;
    for (int i = 0; i < group_size; i++) out[i / 4 * 64 + lane % HR_LANES * 4 + i % 4] |= (uint8_t)(q[i] << shift);
}

// Pack q [n, k], one value in 0..15 a byte, with scale and minimum [n, k / group_size] of `scale_dtype`.
void hr_int4_pack(const uint8_t *q, const void *scale, const void *minimum, int n, int k, int group_size,
                  int scale_dtype, uint8_t *packed) {
    const int groups = k / group_size;
    const size_t each = dtype_bytes(scale_dtype), block = group_bytes(group_size, scale_dtype);
    memset(packed, 0, hr_int4_packed_bytes(n, k, group_size, scale_dtype));
    for (int row = 0; row < n; row++) {
        for (int g = 0; g < groups; g++) {
            uint8_t *out = packed + ((size_t)(row / HR_TILE) * groups + g) * block;
            uint8_t *scales = out + (size_t)HR_TILE / 2 * group_size + row % HR_TILE * each;
            size_t from = ((size_t)row * groups + g) * each;
            pack_group(q + (size_t)row * k + (size_t)g * group_size, group_size, row % HR_TILE, out);
            memcpy(scales, (const char *)scale + from, each);
            memcpy(scales + HR_TILE * each, (const char *)minimum + from, each);
        }
    }
}

static void quantize_row(int4_job *job, int row) {
    const hr_linear_call *call = &job->call;
    float x[call->k];
    load_row(x, call->x, row, call->k, call->k, call->dtype);
    for (int g = 0; g < job->groups; g++) {
        size_t at = (size_t)row * job->groups + g, from = (size_t)g * job->group_size;
        int32_t sum;
        job->scale[at] = quantize_span(x + from, job->group_size, job->q + (size_t)row * call->k + from, &sum);
        job->sum[at] = job->scale[at] * (float)sum;
    }
}

static void quantize_rows(void *argument, int task, int thread) {
    (void)thread;
    int4_job *job = argument;
    int end = min_int(task * 8 + 8, job->call.m);
    for (int row = task * 8; row < end; row++) quantize_row(job, row);
}

// Integer products of one group: sum[r] for the tile's outputs.
HR_INLINE void dot_group(const uint8_t *w, const int8_t *x, size_t stride, int k4, int rows,
                         v16i sum[][HR_TILE_VECTORS]) {
    HR_UNROLL for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (v16i){0};
    for (int k = 0; k < k4; k++) {
        v16u both = HR_LOAD(v16u, w + (size_t)k * 64);
        v64b low = (v64b)(both & 0x0f0f0f0fu), high = (v64b)((both >> 4) & 0x0f0f0f0fu);
        HR_UNROLL for (int r = 0; r < rows; r++) {
            uint32_t x4 = load_u32(x + r * stride + k * 4);
            sum[r][0] = dot4(sum[r][0], low, x4);
            sum[r][1] = dot4(sum[r][1], high, x4);
        }
    }
}

HR_INLINE void dot_tile(const int4_job *job, int tile, int rows, int row, int group_size, int scale_dtype) {
    const int groups = job->groups, k = job->call.k;
    const size_t block = group_bytes(group_size, scale_dtype);
    const uint8_t *w = job->weight + (size_t)tile * groups * block;
    const int8_t *x = job->q + (size_t)row * k;
    const float *x_scale = job->scale + (size_t)row * groups, *x_sum = job->sum + (size_t)row * groups;
    v16f y[MOST_ROWS][HR_TILE_VECTORS];
    HR_UNROLL for (int r = 0; r < rows; r++) y[r][0] = y[r][1] = splat(0.0f);
    for (int g = 0; g < groups; g++, w += block) {
        v16i sum[MOST_ROWS][HR_TILE_VECTORS];
        dot_group(w, x + (size_t)g * group_size, k, group_size / 4, rows, sum);
        const uint8_t *scales = w + (size_t)HR_TILE / 2 * group_size;
        HR_UNROLL for (int v = 0; v < HR_TILE_VECTORS; v++) {
            v16f scale = load16(scales, v * HR_LANES, scale_dtype);
            v16f minimum = load16(scales, HR_TILE + v * HR_LANES, scale_dtype);
            HR_UNROLL for (int r = 0; r < rows; r++) {
                y[r][v] += to_float(sum[r][v]) * scale * x_scale[(size_t)r * groups + g];
                y[r][v] += minimum * x_sum[(size_t)r * groups + g];
            }
        }
    }
    HR_UNROLL for (int r = 0; r < rows; r++) store_tile(&job->call, row + r, tile * HR_TILE, y[r]);
}

HR_INLINE void multiply_patch(const int4_job *job, const hr_patch *patch, int group_size, int scale_dtype) {
    for (int tile = patch->first_tile; tile < patch->end_tile; tile++) {
#define BODY(rows, row) dot_tile(job, tile, rows, row, group_size, scale_dtype)
        HR_FOR_ROWS(BODY, patch->first_row, patch->end_row, MOST_ROWS);
#undef BODY
    }
}

// Groups of 32 with fp16 scales are what GGUF files have; the compiler gets those as constants.
static void multiply(void *argument, int task, int thread) {
    (void)thread;
    const int4_job *job = argument;
    hr_patch patch = patch_of(&job->grid, task, job->call.m);
    if (job->group_size == 32 && job->scale_dtype == HR_F16)
        multiply_patch(job, &patch, 32, HR_F16);
    else
        multiply_patch(job, &patch, job->group_size, job->scale_dtype);
}

// group_size must be a multiple of 16.
void hr_int4_linear(hr_pool *pool, const uint8_t *weight, int group_size, int scale_dtype, const float *bias,
                    const void *x, void *y, int m, int n, int k, int dtype) {
    int groups = k / group_size;
    size_t scales = (size_t)round_up(m * groups, HR_LANES);
    hr_begin(pool);
    float *scratch = hr_scratch(pool, 8 * scales + (size_t)m * k);
    int4_job job = {{x, y, bias, m, n, k, dtype}, make_grid(pool, m, n), weight, group_size, groups, scale_dtype,
                    (int8_t *)(scratch + 2 * scales), scratch, scratch + scales};
    if (m <= 8)
        quantize_rows(&job, 0, 0);
    else
        hr_run(pool, quantize_rows, &job, (m + 7) / 8);
    hr_run(pool, multiply, &job, job.grid.groups * job.grid.chunks);
    hr_end(pool);
}
