// Tasks are claimed from one 64-bit word, (number of tasks << 32) | next task, so that a worker that wakes late finds
// either work or nothing, never a stale job: whoever claims a task holds the job open until it reports it done.
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 60000
#define POLLS_PER_YIELD 64

struct hr_pool {
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic int done;
    _Alignas(64) _Atomic int sleepers;
    _Atomic int stopping;
    _Atomic int next_thread;
    hr_task task;
    void *job;
    int threads;
    pid_t owner;
    pthread_t *workers;
    pthread_mutex_t kernel, sleep;
    pthread_cond_t wake;
    void *scratch, *local;
    size_t scratch_bytes, local_bytes;
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int has_work(uint64_t ticket) { return (uint32_t)ticket < (uint32_t)(ticket >> 32); }

static int ready(hr_pool *pool) { return has_work(atomic_load(&pool->ticket)) || atomic_load(&pool->stopping); }

static void take_tasks(hr_pool *pool, int thread) {
    while (has_work(atomic_load_explicit(&pool->ticket, memory_order_acquire))) {
        uint64_t ticket = atomic_fetch_add(&pool->ticket, 1);
        if (!has_work(ticket)) return;
        pool->task(pool->job, (int)(uint32_t)ticket, thread);
        atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
    }
}

// Yields now and then: on a busy machine the thread that is about to publish work may be waiting for this very core.
static int spin_until_ready(hr_pool *pool) {
    int64_t deadline = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < POLLS_PER_YIELD; i++) {
            if (ready(pool)) return 1;
            relax();
        }
        sched_yield();
    } while (now_ns() < deadline);
    return 0;
}

// `sleepers` rises before the last look for work, and hr_run publishes work before it looks at `sleepers`: one of the
// two sees the other.
static void sleep_until_ready(hr_pool *pool) {
    pthread_mutex_lock(&pool->sleep);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!ready(pool)) pthread_cond_wait(&pool->wake, &pool->sleep);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->sleep);
}

static void wake_all(hr_pool *pool) {
    pthread_mutex_lock(&pool->sleep);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->sleep);
}

static void *work(void *argument) {
    hr_pool *pool = argument;
    int thread = atomic_fetch_add(&pool->next_thread, 1);
    while (!atomic_load(&pool->stopping)) {
        if (!spin_until_ready(pool)) sleep_until_ready(pool);
        take_tasks(pool, thread);
    }
    return NULL;
}

hr_pool *hr_pool_create(int threads) {
    hr_pool *pool = aligned_alloc(64, sizeof *pool);
    if (!pool) return NULL;
    *pool = (hr_pool){.next_thread = 1, .threads = 1, .owner = getpid()};
    pthread_mutex_init(&pool->kernel, NULL);
    pthread_mutex_init(&pool->sleep, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    while (pool->workers && pool->threads < threads &&
           pthread_create(&pool->workers[pool->threads], NULL, work, pool) == 0)
        pool->threads++;
    return pool;
}

// In a forked child the workers do not exist; there is nobody to join and the caller does all the work.
static int alone(const hr_pool *pool) { return pool->threads == 1 || pool->owner != getpid(); }

void hr_pool_destroy(hr_pool *pool) {
    if (!alone(pool)) {
        atomic_store(&pool->stopping, 1);
        wake_all(pool);
        for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i], NULL);
    }
    free(pool->workers);
    free(pool->scratch);
    free(pool->local);
    free(pool);
}

void hr_begin(hr_pool *pool) { pthread_mutex_lock(&pool->kernel); }
void hr_end(hr_pool *pool) { pthread_mutex_unlock(&pool->kernel); }
int hr_threads(const hr_pool *pool) { return pool->threads; }

// Yields, too, in case a worker with a claimed task has lost its core.
static void wait_for_workers(hr_pool *pool, int num_tasks) {
    for (int polls = 0; atomic_load_explicit(&pool->done, memory_order_acquire) < num_tasks; polls++) {
        relax();
        if (polls % POLLS_PER_YIELD == POLLS_PER_YIELD - 1) sched_yield();
    }
}

void hr_run(hr_pool *pool, hr_task task, void *job, int num_tasks) {
    if (num_tasks <= 1 || alone(pool)) {
        for (int i = 0; i < num_tasks; i++) task(job, i, 0);
        return;
    }
    pool->task = task;
    pool->job = job;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->ticket, (uint64_t)num_tasks << 32);
    if (atomic_load(&pool->sleepers)) wake_all(pool);
    take_tasks(pool, 0);
    wait_for_workers(pool, num_tasks);
}

static void *grow(void *old, size_t *capacity, size_t bytes) {
    if (bytes <= *capacity) return old;
    free(old);
    *capacity = (bytes + bytes / 4 + 4095) / 4096 * 4096;
    void *grown = aligned_alloc(64, *capacity);
    if (!grown) {
        fprintf(stderr, "headrace: out of memory for %zu bytes of kernel scratch\n", *capacity);
        abort();
    }
    return grown;
}

void *hr_scratch(hr_pool *pool, size_t bytes) {
    return pool->scratch = grow(pool->scratch, &pool->scratch_bytes, bytes);
}

void hr_reserve_local(hr_pool *pool, size_t bytes) {
    size_t stride = (bytes + 63) / 64 * 64, all = pool->local_bytes * (size_t)pool->threads;
    if (stride <= pool->local_bytes) return;
    pool->local = grow(pool->local, &all, stride * (size_t)pool->threads);
    pool->local_bytes = all / (size_t)pool->threads / 64 * 64;
}

void *hr_local(const hr_pool *pool, int thread) { return (char *)pool->local + pool->local_bytes * (size_t)thread; }
