// What the linear layers share: y [m, n] = x [m, k] times a weight [n, k] transposed, cut into tiles of HR_TILE outputs
// by row chunks. A packed weight keeps a tile's values in the order in which the kernels read them. Every output is
// summed in one fixed order whatever m is, so that a row's answer does not depend on its batch mates.
#ifndef HEADRACE_LINEAR_H
#define HEADRACE_LINEAR_H

#include "dtype.h"
#include "pool.h"

#define HR_TILE 32
#define HR_TILE_VECTORS 2

// Rows of x that a kernel keeps in registers at once: two accumulators a row.
#if defined(__AVX512F__)
#define HR_MAX_ROWS 12
#else
#define HR_MAX_ROWS 4
#endif
#define HR_CHUNK_ROWS 96

typedef struct {
    const void *x;
    void *y;
    const float *bias;  // [n rounded up to HR_TILE], or NULL
    int m, n, k, dtype;
} hr_linear_call;

HR_INLINE int round_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }
HR_INLINE int min_int(int a, int b) { return a < b ? a : b; }

// Write outputs n0 to n0 + HR_TILE of one row, as many of them as exist.
HR_INLINE void store_tile(const hr_linear_call *call, int row, int n0, const v16f values[HR_TILE_VECTORS]) {
    char *y = (char *)call->y + (size_t)row * call->n * dtype_bytes(call->dtype);
    for (int v = 0; v < HR_TILE_VECTORS && n0 + v * HR_LANES < call->n; v++) {
        int n = n0 + v * HR_LANES;
        v16f value = call->bias ? values[v] + HR_LOAD(v16f, call->bias + n) : values[v];
        store_upto16(y, n, value, call->n, call->dtype);
    }
}

// Tasks of a product: a task is `group` neighbouring tiles for one chunk of rows.
typedef struct {
    int tiles, group, groups, chunks;
} hr_grid;

HR_INLINE hr_grid make_grid(const hr_pool *pool, int m, int n) {
    int tiles = round_up(n, HR_TILE) / HR_TILE;
    int chunks = (m + HR_CHUNK_ROWS - 1) / HR_CHUNK_ROWS;
    int group = tiles * chunks / (16 * hr_threads(pool));
    group = group < 1 ? 1 : group;
    return (hr_grid){tiles, group, (tiles + group - 1) / group, chunks};
}

typedef struct {
    int first_tile, end_tile, first_row, end_row;
} hr_patch;

// Neighbouring tasks share a weight tile, which is then in a cache near to both.
HR_INLINE hr_patch patch_of(const hr_grid *grid, int task, int m) {
    int tile = task / grid->chunks * grid->group, row = task % grid->chunks * HR_CHUNK_ROWS;
    return (hr_patch){tile, min_int(tile + grid->group, grid->tiles), row, min_int(row + HR_CHUNK_ROWS, m)};
}

// Calls body(rows, row) for the rows from `first` to `end` in blocks as large as they fit, `most` rows at most; `rows`
// is a constant in each call, so that the compiler can keep a block's sums in registers.
#define HR_TAKE_ROWS(body, rows, end, most) \
    if ((rows) <= (most))                   \
        for (; row + (rows) <= (end); row += (rows)) body(rows, row);
#define HR_FOR_ROWS(body, first, end, most) \
    do {                                    \
        int row = (first);                  \
        HR_TAKE_ROWS(body, 12, end, most)   \
        HR_TAKE_ROWS(body, 8, end, most)    \
        HR_TAKE_ROWS(body, 6, end, most)    \
        HR_TAKE_ROWS(body, 4, end, most)    \
        HR_TAKE_ROWS(body, 2, end, most)    \
        HR_TAKE_ROWS(body, 1, end, most)    \
    } while (0)

#endif
