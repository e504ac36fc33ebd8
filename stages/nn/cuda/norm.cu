// Layer normalization with what stands around it: bias, dropout and residual connection before, dropout behind.
// One warp a row; its lanes are the 32 lanes of `reduce.rs`. A row waits in shared memory, each lane looking at its own
// numbers only.

constexpr int NORM_WARPS = 4;

// Where each row of a buffer stands in the data: `row_of` and `positions` may be missing, for rows of one position.
struct Places {
    const u32* row_of;
    const u32* positions;
    const u64* rows;
};

DEVICE u64 row_at(const Places& places, u32 token) {
    return places.rows[places.row_of ? places.row_of[token] : token];
}
DEVICE u32 position_at(const Places& places, u32 token) { return places.positions ? places.positions[token] : 0; }

// Calls `each(column, stays, load(column))` for the columns of a lane, in ascending order; loads go four ahead, so that
// they need not wait for what is stored between.
template <typename Load, typename Each>
DEVICE void masked_columns(const Mask& mask, const Places& places, u32 token, u32 width, Load load, Each each) {
    u32 lane = threadIdx.x % WARP;
    u64 row = 0;
    u32 position = 0;
    if (mask.threshold != 0) {
        row = row_at(places, token);
        position = position_at(places, token);
    }
    for (u32 group = 0; group * 128 < width; group++) {
        decltype(load(0u)) loaded[4];
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            u32 column = group * 128 + i * WARP + lane;
            if (column < width) loaded[i] = load(column);
        }
        u32 words[4];
        if (mask.threshold != 0) mask_block(words, mask, row, position, 0, group, lane % 16);
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            u32 column = group * 128 + i * WARP + lane;
            if (column < width) each(column, mask.threshold == 0 || keeps(mask, words[i], lane / 16), loaded[i]);
        }
    }
}

struct Two {
    float a, b;
};

// sum = dropout(product + bias) + residual, where there is a product; else the residual itself.
// y = dropout(normalized sum), `copy` the same in T where it is wanted.
template <typename T>
DEVICE void add_norm(const T* product, const float* bias, Mask before, const float* residual, float* sum,
                     const float* gamma, const float* beta, float epsilon, float* statistics, Mask behind, float* y,
                     T* copy, Places places, u32 tokens, u32 width) {
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 token = blockIdx.x * NORM_WARPS + warp;
    if (token >= tokens) return;
    float* x = static_cast<float*>(shared_memory()) + warp * width;
    u64 start = (u64)token * width;
    float total = 0;
    auto changes = [&](u32 column) -> Two {
        float change = product ? wide(product[start + column]) + bias[column] : 0.0f;
        return {change, residual[start + column]};
    };
    masked_columns(before, places, token, width, changes, [&](u32 column, bool stays, Two with) {
        float value = with.b;
        if (product) {
            value = (stays ? with.a * before.scale : 0.0f) + value;
            sum[start + column] = value;
        }
        x[column] = value;
        total += value;
    });
    float mean = warp_sum_everywhere(total) / (float)width;
    float squares = 0;
    for (u32 column = lane; column < width; column += WARP) {
        float difference = x[column] - mean;
        squares = fused(difference, difference, squares);
    }
    float variance = warp_sum_everywhere(squares) / (float)width;
    float deviation = 1.0f / root(variance + epsilon);
    if (lane == 0) {
        statistics[2 * (u64)token] = mean;
        statistics[2 * (u64)token + 1] = deviation;
    }
    auto tensors = [&](u32 column) -> Two { return {gamma[column], beta[column]}; };
    masked_columns(behind, places, token, width, tensors, [&](u32 column, bool stays, Two with) {
        float value = fused((x[column] - mean) * deviation, with.a, with.b);
        value = stays ? value * behind.scale : 0.0f;
        y[start + column] = value;
        if (copy) copy[start + column] = narrow<T>(value);
    });
}

// Turns the gradient of y, before the dropout behind, into that of the sum; `dropped` is that of product + bias.
template <typename T>
DEVICE void add_norm_backward(float* gradient, const float* sum, const float* statistics, const float* gamma, Mask before,
                              T* dropped, Places places, u32 tokens, u32 width) {
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 token = blockIdx.x * NORM_WARPS + warp;
    if (token >= tokens) return;
    float* slope = static_cast<float*>(shared_memory()) + 2 * warp * width;
    float* normalized = slope + width;
    u64 start = (u64)token * width;
    float mean = statistics[2 * (u64)token], deviation = statistics[2 * (u64)token + 1];
    float total = 0, product = 0;
    for (u32 column = lane; column < width; column += WARP) {
        slope[column] = gradient[start + column] * gamma[column];
        normalized[column] = (sum[start + column] - mean) * deviation;
        total += slope[column];
        product = fused(slope[column], normalized[column], product);
    }
    float shift = warp_sum_everywhere(total) / (float)width;
    float tilt = warp_sum_everywhere(product) / (float)width;
    auto kept = [&](u32 column) -> Two { return {slope[column], normalized[column]}; };
    masked_columns(before, places, token, width, kept, [&](u32 column, bool stays, Two with) {
        float value = deviation * (with.a - fused(with.b, tilt, shift));
        gradient[start + column] = value;
        if (dropped) dropped[start + column] = narrow<T>(stays ? value * before.scale : 0.0f);
    });
}

#define NORM(T, type)                                                                                                  \
    KERNEL(NORM_WARPS* WARP)                                                                                           \
    add_norm_##T(const type* product, const float* bias, Mask before, const float* residual, float* sum,               \
                 const float* gamma, const float* beta, float epsilon, float* statistics, Mask behind, float* y,       \
                 type* copy, Places places, u32 tokens, u32 width) {                                                   \
        add_norm<type>(product, bias, before, residual, sum, gamma, beta, epsilon, statistics, behind, y, copy,        \
                       places, tokens, width);                                                                         \
    }                                                                                                                  \
    EXPORT(add_norm_##T)                                                                                               \
    KERNEL(NORM_WARPS* WARP)                                                                                           \
    add_norm_backward_##T(float* gradient, const float* sum, const float* statistics, const float* gamma, Mask before, \
                          type* dropped, Places places, u32 tokens, u32 width) {                                       \
        add_norm_backward<type>(gradient, sum, statistics, gamma, before, dropped, places, tokens, width);             \
    }                                                                                                                  \
    EXPORT(add_norm_backward_##T)
NORM(f32, float)
NORM(bf16, bf16)

// Drops numbers of x `[tokens, width]`, in place.
KERNEL(NORM_WARPS* WARP) drop(float* x, Mask mask, Places places, u32 tokens, u32 width) {
    u32 token = blockIdx.x * NORM_WARPS + threadIdx.x / WARP;
    if (token >= tokens) return;
    u64 start = (u64)token * width;
    auto numbers = [&](u32 column) { return x[start + column]; };
    masked_columns(mask, places, token, width, numbers, [&](u32 column, bool stays, float value) {
        x[start + column] = stays ? value * mask.scale : 0.0f;
    });
}
EXPORT(drop)
