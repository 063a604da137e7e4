// A small thread pool whose workers spin for a moment before they sleep: the kernels of one step follow each other
// within microseconds, and waking a sleeping thread costs more than a whole small kernel.
#ifndef HEADRACE_POOL_H
#define HEADRACE_POOL_H

#include <stddef.h>

typedef struct hr_pool hr_pool;
typedef void (*hr_task)(void *job, int task, int thread);

hr_pool *hr_pool_create(int threads);
void hr_pool_destroy(hr_pool *pool);

// One kernel at a time: scratch belongs to whoever is between begin and end.
void hr_begin(hr_pool *pool);
void hr_end(hr_pool *pool);

int hr_threads(const hr_pool *pool);

// Calls task(job, i, thread) for every i < num_tasks, the caller taking part, and returns when all are done.
void hr_run(hr_pool *pool, hr_task task, void *job, int num_tasks);

// Memory for the kernel's shared intermediate values, 64-byte aligned, valid until hr_end.
void *hr_scratch(hr_pool *pool, size_t bytes);

// Memory for one thread, 64-byte aligned, `bytes` for each thread; reserve before hr_run, use within tasks.
void hr_reserve_local(hr_pool *pool, size_t bytes);
void *hr_local(const hr_pool *pool, int thread);

#endif
