// What the kernels can do well on this CPU, and memory as its address translation likes it.
#if defined(__linux__)
#include <sys/mman.h>
#endif
#include <stddef.h>

// Bit 0: has bf16 dot products, and no tile unit (AMX), for which torch's own kernels are better.
int hr_features(void) {
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
    return 1;
#else
    return 0;
#endif
}

// Ask for huge pages; whether the system gives them is its own business.
void hr_advise_huge(void *memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(memory, bytes, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}
