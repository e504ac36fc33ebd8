// Embeddings and what else gathers or scatters rows. One thread a column.

constexpr int ROW_THREADS = 128;

// The sum of three embeddings; two of them, or their ids, may be missing.
KERNEL(ROW_THREADS)
embed(const u32* ids, const float* words, const u32* types, const float* type_table, const u32* positions,
      const float* position_table, u32 width, float* out) {
    u32 token = blockIdx.x;
    for (u32 column = threadIdx.x; column < width; column += ROW_THREADS) {
        float sum = words[(u64)ids[token] * width + column];
        if (type_table) sum += type_table[(u64)types[token] * width + column];
        if (position_table) sum += position_table[(u64)positions[token] * width + column];
        out[(u64)token * width + column] = sum;
    }
}
EXPORT(embed)

// The gradients of the embeddings of words: those of word `named[i]` are of the tokens
// `order[starts[i]..starts[i + 1]]`, added in that order.
KERNEL(ROW_THREADS)
embed_backward(const float* gradient, const u32* named, const u32* starts, const u32* order, u32 width, float* table) {
    u32 which = blockIdx.x, column = blockIdx.y * ROW_THREADS + threadIdx.x, end = starts[which + 1];
    if (column >= width) return;
    u64 at = (u64)named[which] * width + column;
    float sum = table[at];
    // Some words are in every row: eight loads are on their way at a time.
    for (u32 i = starts[which]; i < end; i += 8) {
        float loaded[8];
        UNROLL
        for (u32 j = 0; j < 8; j++) {
            if (i + j < end) loaded[j] = gradient[(u64)order[i + j] * width + column];
        }
        UNROLL
        for (u32 j = 0; j < 8; j++) {
            if (i + j < end) sum += loaded[j];
        }
    }
    table[at] = sum;
}
EXPORT(embed_backward)

// The gradients of all embeddings of positions: a position is in those rows that are long enough.
KERNEL(ROW_THREADS)
positions_backward(const float* gradient, const u32* offsets, u32 rows, u32 width, u32 adds, float* table) {
    u32 position = blockIdx.x, column = blockIdx.y * ROW_THREADS + threadIdx.x;
    if (column >= width) return;
    u64 at = (u64)position * width + column;
    float sum = adds ? table[at] : 0.0f;
    for (u32 row = 0; row < rows; row++) {
        u32 token = offsets[row] + position;
        if (token < offsets[row + 1]) sum += gradient[(u64)token * width + column];
    }
    table[at] = sum;
}
EXPORT(positions_backward)

// The first token of each row; 0 where there is none.
template <typename T>
DEVICE void gather_firsts(const float* x, const u32* offsets, u32 width, float* firsts, T* copy) {
    u32 row = blockIdx.x;
    bool there = offsets[row] < offsets[row + 1];
    for (u32 column = threadIdx.x; column < width; column += ROW_THREADS) {
        float value = there ? x[(u64)offsets[row] * width + column] : 0.0f;
        firsts[(u64)row * width + column] = value;
        if (copy) copy[(u64)row * width + column] = narrow<T>(value);
    }
}
KERNEL(ROW_THREADS) gather_firsts_f32(const float* x, const u32* offsets, u32 width, float* firsts, float* copy) {
    gather_firsts<float>(x, offsets, width, firsts, copy);
}
EXPORT(gather_firsts_f32)
KERNEL(ROW_THREADS) gather_firsts_bf16(const float* x, const u32* offsets, u32 width, float* firsts, bf16* copy) {
    gather_firsts<bf16>(x, offsets, width, firsts, copy);
}
EXPORT(gather_firsts_bf16)

// Rows where the first tokens are, and zeros elsewhere.
KERNEL(ROW_THREADS) scatter_firsts(const float* firsts, const u32* row_of, const u32* positions, u32 width, float* x) {
    u32 token = blockIdx.x;
    for (u32 column = threadIdx.x; column < width; column += ROW_THREADS) {
        float value = positions[token] == 0 ? firsts[(u64)row_of[token] * width + column] : 0.0f;
        x[(u64)token * width + column] = value;
    }
}
EXPORT(scatter_firsts)

// The mean over the tokens of each row.
KERNEL(ROW_THREADS) mean_rows(const float* x, const u32* offsets, u32 width, float* means) {
    u32 row = blockIdx.x, first = offsets[row], end = offsets[row + 1];
    float share = 1.0f / (float)(end > first ? end - first : 1);
    for (u32 column = threadIdx.x; column < width; column += ROW_THREADS) {
        float sum = 0;
        for (u32 token = first; token < end; token++) sum += x[(u64)token * width + column];
        means[(u64)row * width + column] = sum * share;
    }
}
EXPORT(mean_rows)

KERNEL(ROW_THREADS)
mean_rows_backward(const float* gradient, const u32* row_of, const u32* offsets, u32 width, float* x_gradient) {
    u32 token = blockIdx.x, row = row_of[token];
    float share = 1.0f / (float)(offsets[row + 1] - offsets[row]);
    for (u32 column = threadIdx.x; column < width; column += ROW_THREADS) {
        x_gradient[(u64)token * width + column] = share * gradient[(u64)row * width + column];
    }
}
EXPORT(mean_rows_backward)

// x + bias, through tanh where it is asked for, in place.
KERNEL(ROW_THREADS) add_bias(float* x, const float* bias, u32 width, u32 tanh) {
    for (u32 column = threadIdx.x; column < width; column += ROW_THREADS) {
        u64 at = (u64)blockIdx.x * width + column;
        float value = x[at] + bias[column];
        x[at] = tanh ? hyperbolic_tangent(value) : value;
    }
}
EXPORT(add_bias)

// Turns the gradient of y = tanh(x) into that of x.
KERNEL(ROW_THREADS) tanh_backward(float* gradient, const float* y, u32 count) {
    u32 at = blockIdx.x * ROW_THREADS + threadIdx.x;
    if (at < count) gradient[at] *= fused(-y[at], y[at], 1.0f);
}
EXPORT(tanh_backward)
