// A GPU on one thread of the CPU, for tests: the same kernels, block after block, each thread of a block a fiber.
//
// Fibers change where threads of a kernel meet. Warps, and lanes in them, run in ascending or descending order, as
// `simulated_launch` is told: a kernel that gives other bytes in the other order has a race. A meeting that not all
// threads come to ends the program with a message.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>

#define KERNEL(threads) static void
#define DEVICE static inline
#define SHARED static thread_local
#define UNROLL
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint64_t u64;

namespace simulation {
struct Index {
    u32 x, y, z;
};
constexpr int LANES = 32;
constexpr int MOST_THREADS = 1024;
constexpr size_t MOST_SHARED = 227 * 1024;

struct Place {
    Index thread, block, threads, blocks;
};
extern thread_local Place* place;
extern thread_local void* dynamic_memory;

void wait_for_block();
// Gives `mine` to the warp and returns what all its lanes gave.
struct Words {
    u32 words[8];
};
const Words* exchange(const Words& mine);
u32 lane();
[[noreturn]] void fail(const char* message);

typedef void (*Trampoline)(void* const* arguments);
struct Kernel {
    const char* name;
    Trampoline call;
    const unsigned* sizes;
    unsigned count;
    const Kernel* next;
    static const Kernel*& first() {
        static const Kernel* list = nullptr;
        return list;
    }
    Kernel(const char* name, Trampoline call, const unsigned* sizes, unsigned count)
        : name(name), call(call), sizes(sizes), count(count), next(first()) {
        first() = this;
    }
};
template <auto kernel> struct Caller;
template <typename... A, void (*kernel)(A...)> struct Caller<kernel> {
    static constexpr unsigned sizes[] = {sizeof(A)...};
    static constexpr unsigned count = sizeof...(A);
    template <size_t... I> static void expand(void* const* arguments, std::index_sequence<I...>) {
        kernel(*static_cast<const std::remove_const_t<A>*>(arguments[I])...);
    }
    static void call(void* const* arguments) { expand(arguments, std::index_sequence_for<A...>{}); }
};
}  // namespace simulation

#define EXPORT(name)                                                                                     \
    static const simulation::Kernel exported_##name(#name, simulation::Caller<&name>::call,               \
                                                    simulation::Caller<&name>::sizes, simulation::Caller<&name>::count);
#define threadIdx (simulation::place->thread)
#define blockIdx (simulation::place->block)
#define blockDim (simulation::place->threads)
#define gridDim (simulation::place->blocks)

DEVICE void* shared_memory() { return simulation::dynamic_memory; }
DEVICE void meet() { simulation::wait_for_block(); }
DEVICE void meet_warp() { simulation::exchange({}); }
DEVICE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE float root(float x) { return __builtin_sqrtf(x); }
DEVICE u32 bits_of(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
DEVICE float float_of(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
DEVICE u32 rounded_halves(float first, float second) {
    auto half = [](float x) {
        u32 bits = bits_of(x);
        bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
        return (number ? bits + 0x7fffu + ((bits >> 16) & 1u) : 0x7fffffffu) >> 16;
    };
    return half(first) | half(second) << 16;
}
DEVICE u32 high_product(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }
DEVICE float take(float x, u32 from) {
    const simulation::Words* all = simulation::exchange({{bits_of(x)}});
    return from < simulation::LANES ? float_of(all[from].words[0]) : x;
}
DEVICE float shuffle_down(float x, int by) { return take(x, simulation::lane() + by); }
DEVICE float shuffle_xor(float x, int by) { return take(x, simulation::lane() ^ by); }
DEVICE float broadcast(float x) { return take(x, 0); }

DEVICE void load_matrices(u32 (&to)[4], const void* row, bool transposed) {
    if ((uintptr_t)row % 16 != 0) simulation::fail("a row of a matrix is not aligned");
    simulation::Words mine = {};
    memcpy(mine.words, &row, sizeof row);
    const simulation::Words* all = simulation::exchange(mine);
    u32 lane = simulation::lane();
    for (u32 matrix = 0; matrix < 4; matrix++) {
        u16 pair[2];
        for (u32 i = 0; i < 2; i++) {
            u32 r = lane / 4, c = 2 * (lane % 4) + i;
            if (transposed) std::swap(r, c);
            const u16* from;
            memcpy(&from, all[8 * matrix + r].words, sizeof from);
            pair[i] = from[c];
        }
        to[matrix] = pair[0] | (u32)pair[1] << 16;
    }
    meet_warp();
}

DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const simulation::Words* all = simulation::exchange({{a[0], a[1], a[2], a[3], b0, b1}});
    u32 lane = simulation::lane();
    auto half = [](u32 word, u32 which) { return float_of(which == 0 ? word << 16 : word & 0xffff0000u); };
    for (u32 i = 0; i < 4; i++) {
        u32 row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        float sum = 0;
        for (u32 k = 0; k < 16; k++) {
            const simulation::Words& from_a = all[4 * (row % 8) + k % 8 / 2];
            const simulation::Words& from_b = all[4 * column + k % 8 / 2];
            sum = fused(half(from_a.words[row / 8 + 2 * (k / 8)], k % 2), half(from_b.words[4 + k / 8], k % 2), sum);
        }
        c[i] += sum;
    }
}
