// Steps of the optimizers over all tensors in one launch, with the arithmetic of `optimizer.rs`; the norm of the
// gradient. Tensors are cut in chunks, one a block.

constexpr int STEP_THREADS = 256;

struct Chunk {
    u64 offset;
    u32 length;
    u32 flags;
};
constexpr u32 DECAYS = 1;   // weights of this tensor decay
constexpr u32 CLEARS = 2;   // its gradient is cleared: not every batch writes all of it

struct AdamScalars {
    float scale, l2, kept_first, kept_second, new_first, new_second, epsilon, keep, root, step_size;
};

// What Adam changes.
struct AdamBuffers {
    float *weights, *gradients, *first, *second;
    bf16* copy;
};

// A step of N weights beside each other.
template <int N> DEVICE void adam_step(const AdamScalars& with, const AdamBuffers& of, u32 flags, u64 at) {
    float l2 = flags & DECAYS ? with.l2 : 0.0f, keep = flags & DECAYS ? with.keep : 1.0f;
    float weights[N], gradients[N], first[N], second[N];
    load_some(weights, of.weights + at);
    load_some(gradients, of.gradients + at);
    load_some(first, of.first + at);
    load_some(second, of.second + at);
    UNROLL
    for (int i = 0; i < N; i++) {
        float gradient = fused(l2, weights[i], gradients[i] * with.scale);
        first[i] = first[i] * with.kept_first + gradient * with.new_first;
        second[i] = second[i] * with.kept_second + gradient * gradient * with.new_second;
        float denominator = root(second[i]) / with.root + with.epsilon;
        weights[i] = weights[i] * keep + with.step_size * (first[i] / denominator);
        gradients[i] = 0.0f;
    }
    store_some(of.weights + at, weights);
    store_some(of.first + at, first);
    store_some(of.second + at, second);
    if (of.copy) store_some(of.copy + at, weights);
    if (flags & CLEARS) store_some(of.gradients + at, gradients);
}

// Tensors, and so chunks, begin at a multiple of 16 numbers.
KERNEL(STEP_THREADS)
adam(const Chunk* chunks, AdamScalars with, float* weights, float* gradients, float* first, float* second,
     bf16* copy) {
    Chunk chunk = chunks[blockIdx.x];
    AdamBuffers buffers = {weights, gradients, first, second, copy};
    u32 whole = chunk.length / 4 * 4;
    for (u32 i = 4 * threadIdx.x; i < whole; i += 4 * STEP_THREADS) {
        adam_step<4>(with, buffers, chunk.flags, chunk.offset + i);
    }
    u32 rest = whole + threadIdx.x;
    if (rest < chunk.length) adam_step<1>(with, buffers, chunk.flags, chunk.offset + rest);
}
EXPORT(adam)

struct SgdScalars {
    float scale, l2, momentum, rate;
};

KERNEL(STEP_THREADS)
sgd(const Chunk* chunks, SgdScalars with, float* weights, float* gradients, float* velocity, bf16* copy) {
    Chunk chunk = chunks[blockIdx.x];
    float l2 = chunk.flags & DECAYS ? with.l2 : 0.0f;
    for (u32 i = threadIdx.x; i < chunk.length; i += STEP_THREADS) {
        u64 at = chunk.offset + i;
        float weight = weights[at];
        float change = fused(l2, weight, gradients[at] * with.scale);
        if (velocity) {
            change = velocity[at] * with.momentum + change;
            velocity[at] = change;
        }
        weight += with.rate * change;
        weights[at] = weight;
        if (copy) copy[at] = narrow<bf16>(weight);
        if (chunk.flags & CLEARS) gradients[at] = 0.0f;
    }
}
EXPORT(sgd)

// The sum of the squares of each chunk: one warp each, its lanes those of `reduce.rs`.
KERNEL(STEP_THREADS) squares(const Chunk* chunks, u32 count, const float* x, float* sums) {
    u32 which = blockIdx.x * (STEP_THREADS / WARP) + threadIdx.x / WARP;
    if (which >= count) return;
    Chunk chunk = chunks[which];
    float sum = 0;
    for (u32 i = threadIdx.x % WARP; i < chunk.length; i += WARP) {
        float value = x[chunk.offset + i];
        sum = fused(value, value, sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) sums[which] = sum;
}
EXPORT(squares)

// Adds the chunks' sums in double: thread t every 1024th, then neighbours by halves. One block.
KERNEL(1024) squares_total(const float* sums, u32 count, double* total) {
    SHARED double parts[1024];
    double sum = 0;
    for (u32 i = threadIdx.x; i < count; i += 1024) sum += (double)sums[i];
    parts[threadIdx.x] = sum;
    for (u32 half = 512; half > 0; half /= 2) {
        meet();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    meet();
    if (threadIdx.x == 0) *total = parts[0];
}
EXPORT(squares_total)

KERNEL(STEP_THREADS) narrow_all(const float* x, bf16* y, u64 count) {
    u64 at = (u64)blockIdx.x * STEP_THREADS + threadIdx.x;
    if (at < count) y[at] = narrow<bf16>(x[at]);
}
EXPORT(narrow_all)
