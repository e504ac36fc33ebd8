// What kernels are written with, on a card and in the simulation.
//
// Rules of this folder: every a * b + c is written fused (`fused`) or as two operations (the build forbids the
// compiler to choose); sums have one order; float atomics are not used; all threads of a block live to its end, and the
// threads of a warp meet at each `shuffle` and `multiply`.
#pragma once

#ifdef __CUDACC__

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define EXPORT(name)
#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define UNROLL _Pragma("unroll")
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

extern __shared__ uint4 dynamic_shared[];
DEVICE void* shared_memory() { return dynamic_shared; }
DEVICE void meet() { __syncthreads(); }
DEVICE void meet_warp() { __syncwarp(); }
DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float root(float x) { return __fsqrt_rn(x); }
DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE float float_of(u32 x) { return __uint_as_float(x); }
DEVICE u32 high_product(u32 a, u32 b) { return __umulhi(a, b); }
DEVICE float shuffle_down(float x, int by) { return __shfl_down_sync(~0u, x, by); }
DEVICE float shuffle_xor(float x, int by) { return __shfl_xor_sync(~0u, x, by); }
DEVICE float broadcast(float x) { return __shfl_sync(~0u, x, 0); }

// The upper halves of two floats, the first below the second: rounded to the nearest, ties to even; what is not a number
// stays so.
DEVICE u32 rounded_halves(float first, float second) {
    u32 halves;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(second), "f"(first));
    return halves;
}

// Four 8x8 matrices of 16-bit numbers from shared memory: lane l names row l % 8 of matrix l / 8, and of each matrix is
// given the numbers (l / 4, 2 (l % 4)) and the one beside it; `transposed`, those of the transposed matrix.
DEVICE void load_matrices(u32 (&to)[4], const void* row, bool transposed) {
    u32 address = (u32)__cvta_generic_to_shared(row);
    if (transposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
    }
}

// c += a b for bf16 a (16x16) and b (16x8), f32 c (16x8), in the layout of `mma.m16n8k16`.
DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else
#include "simulation.h"
#endif

// The upper half of a float: 8 bits of precision.
struct bf16 {
    u16 bits;
};

DEVICE float wide(float x) { return x; }
DEVICE float wide(bf16 x) { return float_of((u32)x.bits << 16); }

template <typename T> DEVICE T narrow(float x) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return x;
    } else {
        return {(u16)rounded_halves(x, 0.0f)};
    }
}

// Words that are loaded and stored at once.
template <int N> struct alignas(4 * N) Words {
    u32 of[N];
};

// N numbers beside each other that begin at a multiple of their size, or one anywhere.
template <typename T, int N> DEVICE void load_some(float (&to)[N], const T* from) {
    if constexpr (N == 1) {
        to[0] = wide(*from);
    } else if constexpr (sizeof(T) == sizeof(float)) {
        auto words = *reinterpret_cast<const Words<N>*>(from);
        UNROLL
        for (int i = 0; i < N; i++) to[i] = float_of(words.of[i]);
    } else {
        auto words = *reinterpret_cast<const Words<N / 2>*>(from);
        UNROLL
        for (int i = 0; i < N; i++) to[i] = float_of(i % 2 == 0 ? words.of[i / 2] << 16 : words.of[i / 2] & 0xffff0000u);
    }
}
template <typename T, int N> DEVICE void store_some(T* to, const float (&from)[N]) {
    if constexpr (N == 1) {
        *to = narrow<T>(from[0]);
    } else if constexpr (sizeof(T) == sizeof(float)) {
        Words<N> words;
        UNROLL
        for (int i = 0; i < N; i++) words.of[i] = bits_of(from[i]);
        *reinterpret_cast<Words<N>*>(to) = words;
    } else {
        Words<N / 2> words;
        UNROLL
        for (int i = 0; i < N; i += 2) words.of[i / 2] = rounded_halves(from[i], from[i + 1]);
        *reinterpret_cast<Words<N / 2>*>(to) = words;
    }
}

constexpr int WARP = 32;

// The sum over a warp, in lane 0: lane i takes lane i + 16, then i + 8, and so on. `everywhere`, in every lane.
DEVICE float warp_sum(float x) {
    UNROLL
    for (int by = WARP / 2; by > 0; by /= 2) x += shuffle_down(x, by);
    return x;
}
DEVICE float warp_sum_everywhere(float x) { return broadcast(warp_sum(x)); }
