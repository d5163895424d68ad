// Loops that the compiler vectorizes, compiled for the machine they run on.
#pragma once

// One body per instruction set, chosen when the library loads: the wheel runs on any x86-64 and yet
// uses wide vectors. Elsewhere there is only the baseline (which has NEON on arm64), as there is
// under AddressSanitizer, which is not ready yet when the choice is made.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define DHN_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#define DHN_BUILT_FOR "x86-64, AVX2, AVX512"
#else
#define DHN_CLONES
#define DHN_BUILT_FOR "the compiler's baseline"
#endif

// Inlined into every clone of its caller; a plain function would stay baseline code.
#define DHN_INLINE inline __attribute__((always_inline))
