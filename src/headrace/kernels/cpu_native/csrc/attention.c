// Paged attention with an online softmax (FlashAttention, Dao et al. 2022), for decode and prefill alike.
//
// The work: each row's new tokens are cut into query tiles, its keys into ranges of HR_RANGE and those into tiles of
// KEYS. All query heads of a key head share a tile ("rows" below are tokens x heads of the group). A query tile that is
// its row's only one has its ranges as separate tasks, merged in a second pass, so that one long row keeps all threads
// busy; several query tiles are work enough, and each walks its ranges itself. Ranges and tiles lie at fixed positions
// and are merged in order, so a query's answer depends on its position and its cache, never on how it was cut.
#include "attention_tile.h"

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
        find_tile(job, task, tile + KEYS, &places[!now]);
        if (job->pairs)
            attend_tile(job, task, local, tile, &places[now], &places[!now], 1);
        else
            attend_tile(job, task, local, tile, &places[now], &places[!now], 0);
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
