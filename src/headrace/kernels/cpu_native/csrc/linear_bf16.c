// bf16 linear layer with fp32 sums. A tile of the packed weight is [k / 2][HR_TILE][2], pairs along k, as the bf16
// dot-product instruction takes them; activations are read as they come. Each output is one sum in the order of k.
#include "linear.h"

typedef struct {
    hr_linear_call call;
    hr_grid grid;
    const uint16_t *weight, *x;
    int stride;
} bf16_job;

size_t hr_bf16_packed_bytes(int n, int k) { return (size_t)round_up(n, HR_TILE) * round_up(k, 2) * 2; }

void hr_bf16_pack(const uint16_t *weight, int n, int k, uint16_t *packed) {
    size_t tile = (size_t)HR_TILE * round_up(k, 2);
    memset(packed, 0, hr_bf16_packed_bytes(n, k));
    for (int row = 0; row < n; row++) {
        uint16_t *out = packed + row / HR_TILE * tile + row % HR_TILE * 2;
        for (int i = 0; i < k; i++) out[i / 2 * (2 * HR_TILE) + i % 2] = weight[(size_t)row * k + i];
    }
}

HR_INLINE void dot_tile(const bf16_job *job, int tile, int rows, int row) {
    const int pairs = job->stride / 2;
    const uint16_t *w = job->weight + (size_t)tile * HR_TILE * job->stride;
    const uint16_t *x = job->x + (size_t)row * job->stride;
    v16f y[HR_MAX_ROWS][HR_TILE_VECTORS];
    HR_UNROLL for (int r = 0; r < rows; r++) y[r][0] = y[r][1] = splat(0.0f);
    for (int k = 0; k < pairs; k++) {
        v16u w0 = HR_LOAD(v16u, w + (size_t)k * 64), w1 = HR_LOAD(v16u, w + (size_t)k * 64 + 32);
        HR_UNROLL for (int r = 0; r < rows; r++) {
            uint32_t x2 = load_u32(x + (size_t)r * job->stride + k * 2);
            y[r][0] = dot2(y[r][0], w0, x2);
            y[r][1] = dot2(y[r][1], w1, x2);
        }
    }
    HR_UNROLL for (int r = 0; r < rows; r++) store_tile(&job->call, row + r, tile * HR_TILE, y[r]);
}

static void multiply(void *argument, int task, int thread) {
    (void)thread;
    const bf16_job *job = argument;
    hr_patch patch = patch_of(&job->grid, task, job->call.m);
    for (int tile = patch.first_tile; tile < patch.end_tile; tile++) {
#define BODY(rows, row) dot_tile(job, tile, rows, row)
        HR_FOR_ROWS(BODY, patch.first_row, patch.end_row, HR_MAX_ROWS);
#undef BODY
    }
}

// x [m, k] with a zero after each row, for odd k.
static const uint16_t *padded_rows(hr_pool *pool, const uint16_t *x, int m, int k) {
    uint16_t *padded = hr_scratch(pool, (size_t)m * (k + 1) * 2);
    for (int row = 0; row < m; row++) {
        memcpy(padded + (size_t)row * (k + 1), x + (size_t)row * k, (size_t)k * 2);
        padded[(size_t)row * (k + 1) + k] = 0;
    }
    return padded;
}

void hr_bf16_linear(hr_pool *pool, const uint16_t *weight, const float *bias, const uint16_t *x, uint16_t *y, int m,
                    int n, int k) {
    hr_begin(pool);
    const uint16_t *rows = k % 2 ? padded_rows(pool, x, m, k) : x;
    bf16_job job = {{x, y, bias, m, n, k, HR_BF16}, make_grid(pool, m, n), weight, rows, round_up(k, 2)};
    hr_run(pool, multiply, &job, job.grid.groups * job.grid.chunks);
    hr_end(pool);
}
