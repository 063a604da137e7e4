// int8 x int8 linear layer: weights have one scale an output; activations are quantized here, on the way in, one scale
// for each ACTIVATION_GROUP values of a token: a single one a token, stretched by a few large values, loses the others.
// A tile of the packed weight is [k / 4][HR_TILE][4] bytes, the order in which the dot-product instruction eats it.
#include "linear.h"
#include "quantize.h"

#define ACTIVATION_GROUP 64

// Each row has its group's integer sums and its running sums; the latter may leave the registers once a group.
#define MOST_ROWS (HR_MAX_ROWS * 2 / 3)

typedef struct {
    hr_linear_call call;
    hr_grid grid;
    const uint8_t *weight;
    const float *weight_scale;
    int8_t *q;  // [m, stride]
    int stride, groups;
    float *scale;         // [m, groups]
    int32_t *correction;  // [m, groups], what HR_BYTE_OFFSET added to every sum of the group
} int8_job;

size_t hr_int8_packed_bytes(int n, int k) { return (size_t)round_up(n, HR_TILE) * round_up(k, ACTIVATION_GROUP); }

// Pack weight [n, k], signed bytes in -127..127.
void hr_int8_pack(const int8_t *weight, int n, int k, uint8_t *packed) {
    size_t tile_bytes = (size_t)HR_TILE * round_up(k, ACTIVATION_GROUP);
    memset(packed, HR_BYTE_OFFSET, hr_int8_packed_bytes(n, k));
    for (int row = 0; row < n; row++) {
        uint8_t *out = packed + row / HR_TILE * tile_bytes + row % HR_TILE * 4;
        for (int i = 0; i < k; i++)
            out[i / 4 * (4 * HR_TILE) + i % 4] = (uint8_t)(weight[(size_t)row * k + i] + HR_BYTE_OFFSET);
    }
}

static void quantize_row(void *argument, int row, int thread) {
    (void)thread;
    int8_job *job = argument;
    const hr_linear_call *call = &job->call;
    float x[job->stride];
    load_row(x, call->x, row, call->k, job->stride, call->dtype);
    for (int g = 0; g < job->groups; g++) {
        size_t at = (size_t)row * job->groups + g, from = (size_t)g * ACTIVATION_GROUP;
        int32_t sum;
        job->scale[at] = quantize_span(x + from, ACTIVATION_GROUP, job->q + (size_t)row * job->stride + from, &sum);
        job->correction[at] = sum * HR_BYTE_OFFSET;
    }
}

static void quantize_rows(void *argument, int task, int thread) {
    int8_job *job = argument;
    int end = min_int(task * 8 + 8, job->call.m);
    for (int row = task * 8; row < end; row++) quantize_row(job, row, thread);
}

// Integer products of one group: sum[r] for the tile's outputs.
HR_INLINE void dot_group(const uint8_t *w, const int8_t *x, size_t stride, int rows, v16i sum[][HR_TILE_VECTORS]) {
    HR_UNROLL for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = (v16i){0};
    for (int k = 0; k < ACTIVATION_GROUP / 4; k++) {
        v64b w0 = HR_LOAD(v64b, w + (size_t)k * 128), w1 = HR_LOAD(v64b, w + (size_t)k * 128 + 64);
        HR_UNROLL for (int r = 0; r < rows; r++) {
            uint32_t x4 = load_u32(x + r * stride + k * 4);
            sum[r][0] = dot4(sum[r][0], w0, x4);
            sum[r][1] = dot4(sum[r][1], w1, x4);
        }
    }
}

// One tile of outputs for `rows` rows from `row`.
HR_INLINE void dot_tile(const int8_job *job, int tile, int rows, int row) {
    const int groups = job->groups;
    const uint8_t *w = job->weight + (size_t)tile * HR_TILE * job->stride;
    const int8_t *x = job->q + (size_t)row * job->stride;
    const float *x_scale = job->scale + (size_t)row * groups;
    const int32_t *correction = job->correction + (size_t)row * groups;
    v16f y[MOST_ROWS][HR_TILE_VECTORS];
    HR_UNROLL for (int r = 0; r < rows; r++) y[r][0] = y[r][1] = splat(0.0f);
    for (int g = 0; g < groups; g++, w += HR_TILE * ACTIVATION_GROUP) {
        v16i sum[MOST_ROWS][HR_TILE_VECTORS];
        dot_group(w, x + (size_t)g * ACTIVATION_GROUP, job->stride, rows, sum);
        HR_UNROLL for (int r = 0; r < rows; r++) {
            size_t at = (size_t)r * groups + g;
            HR_UNROLL for (int v = 0; v < HR_TILE_VECTORS; v++)
                y[r][v] += to_float(sum[r][v] - correction[at]) * x_scale[at];
        }
    }
    const float *weight_scale = job->weight_scale + tile * HR_TILE;
    HR_UNROLL for (int r = 0; r < rows; r++) {
        HR_UNROLL for (int v = 0; v < HR_TILE_VECTORS; v++) y[r][v] *= HR_LOAD(v16f, weight_scale + v * HR_LANES);
        store_tile(&job->call, row + r, tile * HR_TILE, y[r]);
    }
}

static void multiply(void *argument, int task, int thread) {
    (void)thread;
    const int8_job *job = argument;
    hr_patch patch = patch_of(&job->grid, task, job->call.m);
    for (int tile = patch.first_tile; tile < patch.end_tile; tile++) {
#define BODY(rows, row) dot_tile(job, tile, rows, row)
        HR_FOR_ROWS(BODY, patch.first_row, patch.end_row, MOST_ROWS);
#undef BODY
    }
}

void hr_int8_linear(hr_pool *pool, const uint8_t *weight, const float *weight_scale, const float *bias, const void *x,
                    void *y, int m, int n, int k, int dtype) {
    int stride = round_up(k, ACTIVATION_GROUP), groups = stride / ACTIVATION_GROUP;
    size_t scales = (size_t)round_up(m * groups, HR_LANES);
    hr_begin(pool);
    char *scratch = hr_scratch(pool, 8 * scales + (size_t)m * stride);
    int8_job job = {.call = {x, y, bias, m, n, k, dtype}, .grid = make_grid(pool, m, n), .weight = weight,
                    .weight_scale = weight_scale, .stride = stride, .groups = groups};
    job.scale = (float *)scratch;
    job.correction = (int32_t *)(scratch + 4 * scales);
    job.q = (int8_t *)(scratch + 8 * scales);
    if (m <= 8)
        for (int row = 0; row < m; row++) quantize_row(&job, row, 0);
    else
        hr_run(pool, quantize_rows, &job, (m + 7) / 8);
    hr_run(pool, multiply, &job, job.grid.groups * job.grid.chunks);
    hr_end(pool);
}
