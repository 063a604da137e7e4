// Paged attention with an online softmax (FlashAttention, Dao et al. 2022), for decode and prefill alike.
//
// The work: each row's new tokens are cut into query tiles, its keys into ranges of HR_RANGE and those into tiles of
// KEYS. All query heads of a key head share a tile ("rows" below are tokens x heads of the group). A query tile that is
// its row's only one has its ranges as separate tasks, merged in a second pass, so that one long row keeps all threads
// busy; several query tiles are work enough, and each walks its ranges itself. Ranges and tiles lie at fixed positions
// and are merged in order, so a query's answer depends on its position and its cache, never on how it was cut.
//
// Everything is held in 32-bit words: pairs of bf16 when queries and cache are bf16, else fp32. Keys are transposed on
// the way in, so that sixteen keys' scores are summed side by side.
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

// Write sixteen vectors as columns, `stride` words from one row to the next.
#if defined(__AVX512F__)
HR_INLINE void store_columns(v16u t[HR_LANES], uint32_t *out, int stride) {
    HR_UNROLL for (int stage = 0; stage < 4; stage++) {
        v16u next[HR_LANES];
        HR_UNROLL for (int i = 0; i < 8; i++) {
            next[2 * i] = HR_SHUFFLE(t[i], t[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] = HR_SHUFFLE(t[i], t[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        HR_UNROLL for (int i = 0; i < HR_LANES; i++) t[i] = next[i];
    }
    HR_UNROLL for (int i = 0; i < HR_LANES; i++) HR_STORE(out + i * stride, t[i]);
}
#else
HR_INLINE void store_columns(v16u t[HR_LANES], uint32_t *out, int stride) {
    uint32_t words[HR_LANES][HR_LANES];
    memcpy(words, t, sizeof words);
    for (int i = 0; i < HR_LANES; i++)
        for (int j = 0; j < HR_LANES; j++) out[i * stride + j] = words[j][i];
}
#endif

// Where the keys and values of a tile are.
typedef struct {
    const char *keys[KEYS], *values[KEYS];
} tile_places;

// Those outside [low, high) were never written, are out of the window or have
// been given away: they read as zeros.
// Begins to fetch them, too: one tile is found while the one before it is computed with.
static void find_tile(const attend_job *job, const attend_task *task, int tile, tile_places *places) {
    const int high = task->first_position + task->tokens;
    const int low = job->window ? task->first_position - job->window + 1 : 0;
    static const float zeros[HR_MOST_DIM];
    const int32_t *table = job->block_tables + (size_t)task->row * job->table_stride;
    const size_t vector = job->head_dim * dtype_bytes(job->cache_dtype);
    int block = tile / job->block_size, offset = tile % job->block_size;
    for (int j = 0; j < KEYS; j++, offset++) {
        if (offset == job->block_size) block++, offset = 0;
        int seen = tile + j >= low && tile + j < high;
        size_t head = seen ? (size_t)table[block] * job->kv_heads + task->kv_head : 0;
        size_t place = (head * job->block_size + offset) * vector;
        places->keys[j] = seen ? (const char *)job->k_cache + place : (const char *)zeros;
        places->values[j] = seen ? (const char *)job->v_cache + place : (const char *)zeros;
        for (size_t line = 0; line < vector; line += 64) {
            __builtin_prefetch(places->keys[j] + line);
            __builtin_prefetch(places->values[j] + line);
        }
    }
}

HR_INLINE void load_key_block(const attend_job *job, const char *const keys[HR_LANES], int word, uint32_t *out,
                              int pairs, int whole) {
    v16u t[HR_LANES];
    HR_UNROLL for (int j = 0; j < HR_LANES; j++)
        t[j] = whole ? HR_LOAD(v16u, keys[j] + 4 * word) : load_words(keys[j], word, job->head_dim, job->cache_dtype, pairs);
    store_columns(t, out, KEYS);
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

HR_INLINE void load_values(const attend_job *job, const char *const values[KEYS], uint32_t *out, int pairs) {
    const int step = pairs ? 2 : 1, dtype = pairs ? HR_BF16 : job->cache_dtype, d = job->head_dim;
    for (int j = 0; j < KEYS; j += step) {
        for (int i = 0; i < job->padded_dim; i += HR_LANES) {
            v16u words = (v16u)load_upto16(values[j], i, d, dtype);
            if (pairs) words = (words >> 16) | (v16u)load_upto16(values[j + 1], i, d, dtype);
            HR_STORE(out + j / step * job->padded_dim + i, words);
        }
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

HR_INLINE void attend_tile(const attend_job *job, const attend_task *task, const attend_local *local, int tile,
                           const tile_places *places, int pairs) {
    const int rows = task->tokens * job->group;
    load_keys(job, places->keys, local->keys, pairs);
    load_values(job, places->values, local->values, pairs);
    int row = 0;
    for (; row + 8 <= rows; row += 8) score_rows(job, local, 8, row, pairs);
    for (; row + 3 <= rows; row += 3) score_rows(job, local, 3, row, pairs);
    for (; row < rows; row++) score_rows(job, local, 1, row, pairs);
    for (row = 0; row < rows; row++) {
        mask_row(job, local->scores + row * KEYS, tile, task->first_position + row / job->group);
        weigh_row(job, local, row, pairs);
    }
    for (row = 0; row + 4 <= rows; row += 4) add_rows(job, local, 4, row, pairs);
    for (; row + 3 <= rows; row += 3) add_rows(job, local, 3, row, pairs);
    for (; row < rows; row++) add_rows(job, local, 1, row, pairs);
}

static void clear_state(const attend_job *job, softmax_state *state, int rows) {
    memset(state->values, 0, (size_t)rows * job->padded_dim * sizeof(float));
    for (int row = 0; row < rows; row++) {
        state->largest[row] = -INFINITY;
        state->sum[row] = 0.0f;
    }
}

static void attend_range(const attend_job *job, const attend_task *task, attend_local *local, int range) {
    const int rows = task->tokens * job->group;
    int begin = range * HR_RANGE, end = min_int(begin + HR_RANGE, task->first_position + task->tokens);
    int lowest = job->window ? task->first_position - job->window + 1 : 0;
    if (begin < lowest) begin = lowest / KEYS * KEYS;
    clear_state(job, &local->range, rows);
    for (int row = 0; row < rows; row++) local->sums[row] = splat(0.0f);
    tile_places places[2];
    find_tile(job, task, begin, &places[0]);
    for (int tile = begin, now = 0; tile < end; tile += KEYS, now = !now) {
        if (tile + KEYS < end) find_tile(job, task, tile + KEYS, &places[!now]);
        if (job->pairs)
            attend_tile(job, task, local, tile, &places[now], 1);
        else
            attend_tile(job, task, local, tile, &places[now], 0);
    }
    for (int row = 0; row < rows; row++) local->range.sum[row] = sum_lanes(local->sums[row]);
}

// total += part, both brought to the larger of their maxima.
static void merge(const attend_job *job, const softmax_state *total, const softmax_state *part, int rows) {
    for (int row = 0; row < rows; row++) {
        float a = total->largest[row], b = part->largest[row], both = a > b ? a : b;
        if (both == -INFINITY) continue;
        v16f of_total = exp16(splat(a - both)), of_part = exp16(splat(b - both));
        float *to = total->values + row * job->padded_dim;
        const float *from = part->values + row * job->padded_dim;
        for (int i = 0; i < job->padded_dim; i += HR_LANES)
            HR_STORE(to + i, HR_LOAD(v16f, to + i) * of_total + HR_LOAD(v16f, from + i) * of_part);
        total->sum[row] = total->sum[row] * of_total[0] + part->sum[row] * of_part[0];
        total->largest[row] = both;
    }
}

static void write_output(const attend_job *job, const attend_task *task, const softmax_state *state) {
    const int d = job->head_dim;
    for (int row = 0; row < task->tokens * job->group; row++) {
        size_t token = task->first_token + row / job->group, head = task->kv_head * job->group + row % job->group;
        char *out = (char *)job->out + (token * job->heads + head) * d * dtype_bytes(job->dtype);
        const float *values = state->values + row * job->padded_dim;
        for (int i = 0; i < d; i += HR_LANES)
            store_upto16(out, i, HR_LOAD(v16f, values + i) / state->sum[row], d, job->dtype);
    }
}

static void attend_some(void *argument, int index, int thread) {
    const attend_job *job = ((const attend_job **)argument)[0];
    const hr_pool *pool = ((const hr_pool **)argument)[1];
    const attend_task *task = &job->tasks[index];
    const int rows = task->tokens * job->group;
    attend_local local = local_at(job, hr_local(pool, thread));
    if (task->partial >= 0) local.range = state_at(job, job->partials + (size_t)task->partial * state_floats(job));
    load_queries(job, task, local.q);
    clear_state(job, &local.total, rows);
    for (int range = task->first_range; range < task->end_range; range++) {
        attend_range(job, task, &local, range);
        if (task->partial < 0) merge(job, &local.total, &local.range, rows);
    }
    if (task->partial < 0) write_output(job, task, &local.total);
}

// The second pass: the first task of each run of partial results gathers the run.
static void merge_some(void *argument, int index, int thread) {
    const attend_job *job = ((const attend_job **)argument)[0];
    const hr_pool *pool = ((const hr_pool **)argument)[1];
    const attend_task *task = &job->tasks[index];
    const int rows = task->tokens * job->group;
    if (task->partial < 0 || (index && task[-1].partial >= 0 && task[-1].row == task->row &&
                              task[-1].kv_head == task->kv_head))
        return;
    softmax_state total = local_at(job, hr_local(pool, thread)).total;
    clear_state(job, &total, rows);
    const attend_task *end = job->tasks + job->num_tasks;
    for (const attend_task *t = task; t < end && t->row == task->row && t->kv_head == task->kv_head; t++) {
        softmax_state part = state_at(job, job->partials + (size_t)t->partial * state_floats(job));
        merge(job, &total, &part, rows);
    }
    write_output(job, task, &total);
}

// Lay out the tasks of one query tile of one key head; only counts them while job->tasks is NULL.
static void plan_tile(attend_job *job, attend_task task, int alone) {
    int lowest = job->window ? task.first_position - job->window + 1 : 0;
    int first = lowest > 0 ? lowest / HR_RANGE : 0;
    int end = (task.first_position + task.tokens - 1) / HR_RANGE + 1;
    int pieces = alone && end - first > 1 ? end - first : 1;
    for (int piece = 0; piece < pieces; piece++) {
        task.first_range = first + piece;
        task.end_range = pieces > 1 ? task.first_range + 1 : end;
        task.partial = pieces > 1 ? job->num_partials++ : -1;
        if (job->tasks) job->tasks[job->num_tasks] = task;
        job->num_tasks++;
    }
}

static void plan_row(attend_job *job, int row) {
    int start = job->query_start[row], tokens = job->query_start[row + 1] - start;
    int position = job->context_lens[row] - tokens, step = job->tokens_per_tile;
    for (int kv_head = 0; kv_head < job->kv_heads; kv_head++)
        for (int first = 0; first < tokens; first += step)
            plan_tile(job,
                      (attend_task){.row = row, .kv_head = kv_head, .first_token = start + first,
                                    .tokens = min_int(step, tokens - first), .first_position = position + first},
                      tokens <= step);
}

static void plan(attend_job *job) {
    job->num_tasks = job->num_partials = 0;
    for (int row = 0; row < job->rows; row++) plan_row(job, row);
}

// Query heads that share a key head must be at most MOST_QUERY_ROWS, head_dim even and at most HR_MOST_DIM.
void hr_attend(hr_pool *pool, const void *q, const void *k_cache, const void *v_cache, void *out,
               const int32_t *query_start, const int32_t *context_lens, const int32_t *block_tables, int rows,
               int table_stride, int heads, int kv_heads, int head_dim, int block_size, int dtype, int cache_dtype,
               int window, float scale) {
    const int pairs = dtype == HR_BF16 && cache_dtype == HR_BF16, group = heads / kv_heads;
    attend_job job = {.q = q, .k_cache = k_cache, .v_cache = v_cache, .out = out, .query_start = query_start,
                      .context_lens = context_lens, .block_tables = block_tables, .rows = rows,
                      .table_stride = table_stride, .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim,
                      .block_size = block_size, .dtype = dtype, .cache_dtype = cache_dtype, .window = window,
                      .scale = scale, .pairs = pairs, .group = group, .tokens_per_tile = MOST_QUERY_ROWS / group,
                      .words = round_up(pairs ? head_dim / 2 : head_dim, HR_LANES),
                      .padded_dim = round_up(head_dim, HR_LANES)};
    hr_begin(pool);
    plan(&job);
    size_t task_bytes = (job.num_tasks * sizeof(attend_task) + 63) / 64 * 64;
    char *scratch = hr_scratch(pool, task_bytes + (size_t)job.num_partials * state_floats(&job) * sizeof(float));
    job.tasks = (attend_task *)scratch;
    job.partials = (float *)(scratch + task_bytes);
    plan(&job);
    hr_reserve_local(pool, local_words(&job) * 4);
    const void *arguments[2] = {&job, pool};
    hr_run(pool, attend_some, arguments, job.num_tasks);
    if (job.num_partials) hr_run(pool, merge_some, arguments, job.num_tasks);
    hr_end(pool);
}
