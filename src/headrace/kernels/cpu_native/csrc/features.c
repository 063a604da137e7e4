// What the compiler was told about this CPU, and so what the kernels in this library can do well.

// Bit 0: has bf16 dot products, and no tile unit (AMX), for which torch's own kernels are better.
int hr_features(void) {
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
    return 1;
#else
    return 0;
#endif
}
