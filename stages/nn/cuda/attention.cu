// Scaled dot-product attention over packed rows, with dropout of the probabilities (`attention.rs` has the formulas): in
// tiles of 64 queries by 64 keys, four warps with 16 queries each. No score leaves the chip; the way back computes the
// probabilities again from each query's greatest score and sum, and reads which of them were dropped.
//
// Products of tiles go by 16 x 8 results a warp, in the layout of `multiply`: lane l has rows l / 4 and l / 4 + 8, columns
// 2 (l % 4) and the one beside it. f32 is multiplied by plain fused operations in the same layout.

constexpr int ATTENTION_WARPS = 4;
constexpr int ATTENTION_THREADS = ATTENTION_WARPS * WARP;
constexpr u32 TILE = 64;
constexpr int TILES_OF_8 = TILE / 8;

// What the kernels of one layer read; numbers of T begin at the first token's first head.
struct Heads {
    const void* query;
    const void* key;
    const void* value;
    const float* query_bias;
    const float* key_bias;
    const float* value_bias;
    const u32* query_offsets;   // where the queries of each row begin, and the end
    const u32* offsets;         // likewise keys and values
    const u64* rows;
    u32* kept;                      // which probabilities stay: forward leaves it for the way back, `[queries, heads, groups, 4]`
    u32 query_stride, key_stride;   // numbers from token to token
    u32 heads, width;
    u32 groups;                     // of 128 keys
    float scale;
    Mask mask;
};

// A tile of up to 64 rows of D numbers in shared memory; rows begin 16 bytes apart from each other's banks.
template <typename T, int COLUMNS> constexpr u32 STRIDE = COLUMNS + 16 / sizeof(T);

// Rows `0..valid` of a head, plus its bias; zeros behind them and behind column `width`.
template <typename T, int D>
DEVICE void load_tile(T* to, const T* from, u32 stride, u32 valid, u32 width, const float* bias) {
    constexpr u32 LD = STRIDE<T, D>, EACH = 16 / sizeof(T), VECTORS = D / EACH;
    if (width == D) {
        for (u32 i = threadIdx.x; i < TILE * VECTORS; i += ATTENTION_THREADS) {
            u32 row = i / VECTORS, column = i % VECTORS * EACH;
            T* place = to + row * LD + column;
            const T* source = from + (u64)row * stride + column;
            if (row >= valid || !bias) {
                Words<4> words = {};
                if (row < valid) words = *reinterpret_cast<const Words<4>*>(source);
                *reinterpret_cast<Words<4>*>(place) = words;
                continue;
            }
            float numbers[EACH];
            load_some(numbers, source);
            UNROLL
            for (u32 j = 0; j < EACH; j += 4) {
                float shifts[4];
                load_some(shifts, bias + column + j);
                UNROLL
                for (u32 k = 0; k < 4; k++) numbers[j + k] += shifts[k];
            }
            store_some(place, numbers);
        }
        return;
    }
    for (u32 i = threadIdx.x; i < TILE * D; i += ATTENTION_THREADS) {
        u32 row = i / D, column = i % D;
        float number = 0;
        if (row < valid && column < width) {
            number = wide(from[(u64)row * stride + column]) + (bias ? bias[column] : 0.0f);
        }
        to[row * LD + column] = narrow<T>(number);
    }
}

// c += a bᵀ for a `[16, k]` and b `[8 tiles, k]`.
template <int N>
DEVICE void product_nt(float (&c)[N][4], const float* a, u32 lda, const float* b, u32 ldb, u32 k, u32 tiles) {
    u32 lane = threadIdx.x % WARP, row = lane / 4, column = 2 * (lane % 4);
    for (u32 i = 0; i < k; i++) {
        float a0 = a[row * lda + i], a1 = a[(row + 8) * lda + i];
        UNROLL
        for (u32 n = 0; n < N; n++) {
            if (n >= tiles) continue;
            float b0 = b[(n * 8 + column) * ldb + i], b1 = b[(n * 8 + column + 1) * ldb + i];
            c[n][0] = fused(a0, b0, c[n][0]);
            c[n][1] = fused(a0, b1, c[n][1]);
            c[n][2] = fused(a1, b0, c[n][2]);
            c[n][3] = fused(a1, b1, c[n][3]);
        }
    }
}

// c += a b for a `[16, k]`, or, `TRANSPOSED`, kept as `[k, 16]`, and b `[k, 8 N]`.
template <bool TRANSPOSED, int N>
DEVICE void product_nn(float (&c)[N][4], const float* a, u32 lda, const float* b, u32 ldb, u32 k) {
    u32 lane = threadIdx.x % WARP, row = lane / 4, column = 2 * (lane % 4);
    for (u32 i = 0; i < k; i++) {
        float a0 = TRANSPOSED ? a[i * lda + row] : a[row * lda + i];
        float a1 = TRANSPOSED ? a[i * lda + row + 8] : a[(row + 8) * lda + i];
        UNROLL
        for (u32 n = 0; n < N; n++) {
            float b0 = b[i * ldb + n * 8 + column], b1 = b[i * ldb + n * 8 + column + 1];
            c[n][0] = fused(a0, b0, c[n][0]);
            c[n][1] = fused(a0, b1, c[n][1]);
            c[n][2] = fused(a1, b0, c[n][2]);
            c[n][3] = fused(a1, b1, c[n][3]);
        }
    }
}

template <int N>
DEVICE void product_nt(float (&c)[N][4], const bf16* a, u32 lda, const bf16* b, u32 ldb, u32 k, u32 tiles) {
    u32 lane = threadIdx.x % WARP;
    for (u32 i = 0; i < k; i += 16) {
        u32 left[4], right[4];
        load_matrices(left, a + (lane % 16) * lda + i + lane / 16 * 8, false);
        UNROLL
        for (u32 n = 0; n < N; n += 2) {
            if (n >= tiles) continue;
            load_matrices(right, b + (n * 8 + lane % 8 + lane / 16 * 8) * ldb + i + lane / 8 % 2 * 8, false);
            multiply(c[n], left, right[0], right[1]);
            multiply(c[n + 1], left, right[2], right[3]);
        }
    }
}

template <bool TRANSPOSED, int N>
DEVICE void product_nn(float (&c)[N][4], const bf16* a, u32 lda, const bf16* b, u32 ldb, u32 k) {
    u32 lane = threadIdx.x % WARP;
    for (u32 i = 0; i < k; i += 16) {
        u32 left[4], right[4];
        if (TRANSPOSED) {
            load_matrices(left, a + (i + lane % 8 + lane / 16 * 8) * lda + lane / 8 % 2 * 8, true);
        } else {
            load_matrices(left, a + (lane % 16) * lda + i + lane / 16 * 8, false);
        }
        UNROLL
        for (u32 n = 0; n < N; n += 2) {
            load_matrices(right, b + (i + lane % 16) * ldb + n * 8 + lane / 16 * 8, true);
            multiply(c[n], left, right[0], right[1]);
            multiply(c[n + 1], left, right[2], right[3]);
        }
    }
}

// Which probabilities of a lane's two rows stay, for the 128 keys of a group: bit `2 n + i` for column 8 n + 2 (l % 4) + i.
// The bits of a row's 16 blocks of random numbers are those of 4 lanes.
struct Kept {
    u32 rows[2];
};

DEVICE Kept kept_of(const Mask& mask, u64 row, u32 query, u32 head, u32 group) {
    Kept kept = {{~0u, ~0u}};
    if (mask.threshold == 0) return kept;
    u32 lane = threadIdx.x % WARP;
    UNROLL
    for (u32 side = 0; side < 2; side++) {
        u32 bits = 0;
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            // Blocks 2 (l % 4), the next one, and these plus 8.
            u32 words[4];
            mask_block(words, mask, row, query + lane / 4 + 8 * side, head, group, 8 * (i / 2) + 2 * (lane % 4) + i % 2);
            UNROLL
            for (u32 word = 0; word < 4; word++) {
                UNROLL
                for (u32 upper = 0; upper < 2; upper++) {
                    u32 tile = 4 * word + 2 * upper + i / 2;
                    bits |= (u32)keeps(mask, words[word], upper) << (2 * tile + i % 2);
                }
            }
        }
        kept.rows[side] = bits;
    }
    return kept;
}

// The same for the 64 keys from `base` on, a half of a group.
DEVICE Kept half_of(const Kept& kept, u32 base) {
    u32 shift = base / TILE % 2 * 16;
    return {{kept.rows[0] >> shift, kept.rows[1] >> shift}};
}

// Whether number i of tile n of a lane stays, in a half.
DEVICE bool stays(const Kept& half, u32 n, u32 i) { return half.rows[i / 2] >> (2 * n + i % 2) & 1; }

// Where a block works.
struct Part {
    u32 head, sequence;
    u32 query_base, queries;   // the first query of its row, and how many there are
    u32 key_base, keys;
};

DEVICE Part part_of(const Heads& heads) {
    Part part;
    part.sequence = blockIdx.x;
    part.head = blockIdx.y;
    part.query_base = heads.query_offsets[part.sequence];
    part.queries = heads.query_offsets[part.sequence + 1] - part.query_base;
    part.key_base = heads.offsets[part.sequence];
    part.keys = heads.offsets[part.sequence + 1] - part.key_base;
    return part;
}

// Where a lane keeps that of one of its rows, `side`; `query` of the row.
DEVICE u32* kept_place(const Heads& heads, const Part& part, u32 query, u32 group) {
    u64 at = ((u64)(part.query_base + query) * heads.heads + part.head) * heads.groups + group;
    return heads.kept + at * 4 + threadIdx.x % 4;
}

DEVICE Kept read_kept(const Heads& heads, const Part& part, u32 own, u32 group) {
    Kept kept = {{~0u, ~0u}};
    UNROLL
    for (u32 side = 0; side < 2; side++) {
        u32 query = own + threadIdx.x % WARP / 4 + 8 * side;
        if (heads.kept && query < part.queries) kept.rows[side] = *kept_place(heads, part, query, group);
    }
    return kept;
}

DEVICE void write_kept(const Heads& heads, const Part& part, u32 own, u32 group, const Kept& kept) {
    UNROLL
    for (u32 side = 0; side < 2; side++) {
        u32 query = own + threadIdx.x % WARP / 4 + 8 * side;
        if (heads.kept && query < part.queries) *kept_place(heads, part, query, group) = kept.rows[side];
    }
}

DEVICE u32 least(u32 a, u32 b) { return a < b ? a : b; }
DEVICE float greater(float a, float b) { return a > b ? a : b; }

// e to the x for an x of at most 0, or e to the -87 where that is less: nothing beside the greatest, which is 1.
DEVICE float falling(float x) { return near_exponential(x < -87.0f ? -87.0f : x); }

// Where a tile has fewer keys, the scores of those that are missing.
DEVICE void clear_missing(float (&scores)[TILES_OF_8][4], u32 valid) {
    if (valid == TILE) return;
    u32 column = 2 * (threadIdx.x % 4);
    UNROLL
    for (u32 n = 0; n < TILES_OF_8; n++) {
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            if (n * 8 + column + i % 2 >= valid) scores[n][i] = -INFINITY;
        }
    }
}

// Queries, keys or values of a block's row and head, from one of its tokens on.
template <typename T>
DEVICE const T* numbers_of(const void* from, u32 token, u32 stride, const Part& part, u32 width) {
    return static_cast<const T*>(from) + (u64)token * stride + part.head * width;
}
DEVICE const float* bias_of(const float* bias, const Part& part, u32 width) {
    return bias ? bias + part.head * width : nullptr;
}

// Writes a warp's results `[16, 64]` to shared memory.
template <typename T> DEVICE void keep_tile(T* to, const float (&numbers)[TILES_OF_8][4]) {
    constexpr u32 LP = STRIDE<T, TILE>;
    u32 lane = threadIdx.x % WARP;
    UNROLL
    for (u32 n = 0; n < TILES_OF_8; n++) {
        UNROLL
        for (u32 side = 0; side < 2; side++) {
            const float pair[2] = {numbers[n][2 * side], numbers[n][2 * side + 1]};
            store_some(to + (lane / 4 + 8 * side) * LP + n * 8 + 2 * (lane % 4), pair);
        }
    }
}

// Writes a warp's results, rows `0..valid` of `[16, D]`, to a head of a buffer.
template <typename T, int D>
DEVICE void write_rows(T* to, u32 stride, u32 valid, u32 width, const float (&numbers)[D / 8][4]) {
    u32 lane = threadIdx.x % WARP;
    UNROLL
    for (u32 side = 0; side < 2; side++) {
        u32 row = lane / 4 + 8 * side;
        if (row >= valid) continue;
        UNROLL
        for (u32 n = 0; n < D / 8; n++) {
            u32 column = n * 8 + 2 * (lane % 4);
            const float pair[2] = {numbers[n][2 * side], numbers[n][2 * side + 1]};
            T* at = to + (u64)row * stride + column;
            if (width == D) {
                store_some(at, pair);
            } else {
                if (column < width) at[0] = narrow<T>(pair[0]);
                if (column + 1 < width) at[1] = narrow<T>(pair[1]);
            }
        }
    }
}

// The context of 64 queries of one head of one row. `statistics` `[queries, heads, 2]` keeps each query's greatest score
// and the inverse of its sum.
template <typename T, int D> DEVICE void attention(const Heads& heads, T* out, u32 out_stride, float* statistics) {
    constexpr u32 LD = STRIDE<T, D>, LP = STRIDE<T, TILE>;
    Part part = part_of(heads);
    u32 first = blockIdx.z * TILE;
    if (first >= part.queries) return;
    T* query = static_cast<T*>(shared_memory());
    T* key = query + TILE * LD;
    T* value = key + TILE * LD;
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    T* probabilities = value + TILE * LD + warp * 16 * LP;
    u32 width = heads.width, own = first + warp * 16;
    bool works = own < part.queries;
    load_tile<T, D>(query, numbers_of<T>(heads.query, part.query_base + first, heads.query_stride, part, width),
                    heads.query_stride, least(TILE, part.queries - first), width,
                    bias_of(heads.query_bias, part, width));
    float context[D / 8][4] = {};
    float greatest[2] = {-INFINITY, -INFINITY}, sums[2] = {};
    Kept kept = {};
    for (u32 base = 0; base < part.keys; base += TILE) {
        u32 valid = least(TILE, part.keys - base);
        meet();
        load_tile<T, D>(key, numbers_of<T>(heads.key, part.key_base + base, heads.key_stride, part, width),
                        heads.key_stride, valid, width, bias_of(heads.key_bias, part, width));
        load_tile<T, D>(value, numbers_of<T>(heads.value, part.key_base + base, heads.key_stride, part, width),
                        heads.key_stride, valid, width, bias_of(heads.value_bias, part, width));
        meet();
        if (!works) continue;
        if (base % 128 == 0) {
            kept = kept_of(heads.mask, heads.rows[part.sequence], own, part.head, base / 128);
            write_kept(heads, part, own, base / 128, kept);
        } else {
            kept = half_of(kept, base);
        }
        float scores[TILES_OF_8][4] = {};
        product_nt(scores, query + warp * 16 * LD, LD, key, LD, D, (valid + 7) / 8);
        clear_missing(scores, valid);
        float most[2] = {-INFINITY, -INFINITY};
        UNROLL
        for (u32 n = 0; n < TILES_OF_8; n++) {
            UNROLL
            for (u32 i = 0; i < 4; i++) most[i / 2] = greater(scores[n][i], most[i / 2]);
        }
        UNROLL
        for (u32 side = 0; side < 2; side++) {
            most[side] = greater(shuffle_xor(most[side], 1), most[side]);
            most[side] = greater(shuffle_xor(most[side], 2), most[side]);
            most[side] = greater(greatest[side], most[side]);
            float shrink = falling((greatest[side] - most[side]) * heads.scale);
            greatest[side] = most[side];
            sums[side] *= shrink;
            UNROLL
            for (u32 n = 0; n < D / 8; n++) {
                context[n][2 * side] *= shrink;
                context[n][2 * side + 1] *= shrink;
            }
        }
        UNROLL
        for (u32 n = 0; n < TILES_OF_8; n++) {
            UNROLL
            for (u32 i = 0; i < 4; i++) {
                float e = falling((scores[n][i] - greatest[i / 2]) * heads.scale);
                sums[i / 2] += e;
                scores[n][i] = stays(kept, n, i) ? e : 0.0f;
            }
        }
        keep_tile(probabilities, scores);
        meet_warp();
        product_nn<false>(context, probabilities, LP, value, LD, (valid + 15) / 16 * 16);
    }
    if (!works) return;
    UNROLL
    for (u32 side = 0; side < 2; side++) {
        sums[side] += shuffle_xor(sums[side], 1);
        sums[side] += shuffle_xor(sums[side], 2);
    }
    UNROLL
    for (u32 side = 0; side < 2; side++) {
        u32 position = own + lane / 4 + 8 * side;
        float inverse = part.keys > 0 ? 1.0f / sums[side] : 0.0f;
        float factor = inverse * heads.mask.scale;
        if (lane % 4 == 0 && position < part.queries) {
            u64 at = (u64)(part.query_base + position) * heads.heads + part.head;
            const float both[2] = {greatest[side], inverse};
            store_some(statistics + 2 * at, both);
        }
        UNROLL
        for (u32 n = 0; n < D / 8; n++) {
            context[n][2 * side] *= factor;
            context[n][2 * side + 1] *= factor;
        }
    }
    T* to = out + (u64)(part.query_base + own) * out_stride + part.head * width;
    write_rows<T, D>(to, out_stride, least(16, part.queries - own), width, context);
}

// The gradient of the context times the context, summed: `[queries, heads]`. One warp a query and head.
template <typename T>
DEVICE void attention_common(const T* out, const T* gradient, u32 count, u32 width, float* common) {
    u32 which = blockIdx.x * ATTENTION_WARPS + threadIdx.x / WARP;
    if (which >= count) return;
    float sum = 0;
    for (u32 i = threadIdx.x % WARP; i < width; i += WARP) {
        u64 at = (u64)which * width + i;
        sum = fused(wide(gradient[at]), wide(out[at]), sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) common[which] = sum;
}

// What the way back reads besides, and where its results go.
struct HeadGradients {
    const void* gradient;   // that of the context, `[queries, heads * width]`
    const float* statistics;
    const float* common;
    void* query;
    void* key;
    void* value;   // the results, with the strides of what they are the gradients of
    void* slopes;  // those of the scores, `[queries, heads, slope_stride]`: the keys' pass leaves them for the queries'
    u32 slope_stride;
};

// The slopes of 16 queries by 64 keys: `scores` become the probabilities after dropout, `slopes` from the gradients of
// these become those of the scores. Where there is no query, both become 0; where no key, as good as 0.
DEVICE void slopes_of(const Heads& heads, const HeadGradients& gradients, const Part& part, u32 own, u32 valid,
                      const Kept& half, float (&scores)[TILES_OF_8][4], float (&slopes)[TILES_OF_8][4]) {
    float statistics[2][2] = {}, common[2] = {};
    UNROLL
    for (u32 side = 0; side < 2; side++) {
        u32 position = own + threadIdx.x % WARP / 4 + 8 * side;
        if (position >= part.queries) continue;
        u64 at = (u64)(part.query_base + position) * heads.heads + part.head;
        load_some(statistics[side], gradients.statistics + 2 * at);
        common[side] = gradients.common[at];
    }
    clear_missing(scores, valid);
    UNROLL
    for (u32 n = 0; n < TILES_OF_8; n++) {
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            u32 side = i / 2;
            float p = falling((scores[n][i] - statistics[side][0]) * heads.scale) * statistics[side][1];
            bool keep = stays(half, n, i);
            float dp = keep ? slopes[n][i] * heads.mask.scale : 0.0f;
            slopes[n][i] = p * (dp - common[side]) * heads.scale;
            scores[n][i] = keep ? p * heads.mask.scale : 0.0f;
        }
    }
}

// The gradients of 64 keys and values: the warps share the queries, then the keys. Leaves the slopes of the scores.
template <typename T, int D> DEVICE void attention_keys(const Heads& heads, const HeadGradients& gradients) {
    constexpr u32 LD = STRIDE<T, D>, LP = STRIDE<T, TILE>, EACH = 16 / sizeof(T);
    // Of f32, slopes and probabilities take turns, so that blocks have room on smaller devices.
    constexpr bool TURNS = sizeof(T) == sizeof(float);
    Part part = part_of(heads);
    u32 base = blockIdx.z * TILE;
    if (base >= part.keys) return;
    T* query = static_cast<T*>(shared_memory());
    T* gradient = query + TILE * LD;
    T* key = gradient + TILE * LD;
    T* value = key + TILE * LD;
    T* kept_slopes = value + TILE * LD;
    T* probabilities = TURNS ? kept_slopes : kept_slopes + TILE * LP;
    u32 warp = threadIdx.x / WARP, width = heads.width, context_stride = heads.heads * width;
    u32 valid = least(TILE, part.keys - base);
    load_tile<T, D>(key, numbers_of<T>(heads.key, part.key_base + base, heads.key_stride, part, width),
                    heads.key_stride, valid, width, bias_of(heads.key_bias, part, width));
    load_tile<T, D>(value, numbers_of<T>(heads.value, part.key_base + base, heads.key_stride, part, width),
                    heads.key_stride, valid, width, bias_of(heads.value_bias, part, width));
    float key_result[D / 8][4] = {}, value_result[D / 8][4] = {};
    for (u32 first = 0; first < part.queries; first += TILE) {
        u32 valid_queries = least(TILE, part.queries - first), own = first + warp * 16;
        meet();
        load_tile<T, D>(query, numbers_of<T>(heads.query, part.query_base + first, heads.query_stride, part, width),
                        heads.query_stride, valid_queries, width, bias_of(heads.query_bias, part, width));
        load_tile<T, D>(gradient,
                        numbers_of<T>(gradients.gradient, part.query_base + first, context_stride, part, width),
                        context_stride, valid_queries, width, nullptr);
        meet();
        float scores[TILES_OF_8][4] = {}, slopes[TILES_OF_8][4] = {};
        if (own < part.queries) {
            Kept half = half_of(read_kept(heads, part, own, base / 128), base);
            product_nt(scores, query + warp * 16 * LD, LD, key, LD, D, (valid + 7) / 8);
            product_nt(slopes, gradient + warp * 16 * LD, LD, value, LD, D, (valid + 7) / 8);
            slopes_of(heads, gradients, part, own, valid, half, scores, slopes);
        }
        keep_tile(kept_slopes + warp * 16 * LP, slopes);
        if (!TURNS) keep_tile(probabilities + warp * 16 * LP, scores);
        meet();
        u32 depth = (valid_queries + 15) / 16 * 16;
        product_nn<true>(key_result, kept_slopes + warp * 16, LP, query, LD, depth);
        for (u32 i = threadIdx.x; i < valid_queries * (TILE / EACH); i += ATTENTION_THREADS) {
            u32 row = i / (TILE / EACH), column = i % (TILE / EACH) * EACH;
            u64 at = (u64)(part.query_base + first + row) * heads.heads + part.head;
            *reinterpret_cast<Words<4>*>(static_cast<T*>(gradients.slopes) + at * gradients.slope_stride + base + column) =
                *reinterpret_cast<const Words<4>*>(kept_slopes + row * LP + column);
        }
        if (TURNS) {
            meet();
            keep_tile(probabilities + warp * 16 * LP, scores);
            meet();
        }
        product_nn<true>(value_result, probabilities + warp * 16, LP, gradient, LD, depth);
    }
    u32 own_key = base + warp * 16;
    if (own_key >= part.keys) return;
    u64 at = (u64)(part.key_base + own_key) * heads.key_stride + part.head * width;
    u32 count = least(16, part.keys - own_key);
    write_rows<T, D>(static_cast<T*>(gradients.key) + at, heads.key_stride, count, width, key_result);
    write_rows<T, D>(static_cast<T*>(gradients.value) + at, heads.key_stride, count, width, value_result);
}

// The gradients of 64 queries, from the slopes of their scores.
template <typename T, int D> DEVICE void attention_queries(const Heads& heads, const HeadGradients& gradients) {
    constexpr u32 LD = STRIDE<T, D>, LP = STRIDE<T, TILE>;
    Part part = part_of(heads);
    u32 first = blockIdx.z * TILE;
    if (first >= part.queries) return;
    T* key = static_cast<T*>(shared_memory());
    T* slopes = key + TILE * LD;
    u32 warp = threadIdx.x / WARP, width = heads.width, own = first + warp * 16;
    u64 at = (u64)(part.query_base + first) * heads.heads + part.head;
    const T* from = static_cast<const T*>(gradients.slopes) + at * gradients.slope_stride;
    float result[D / 8][4] = {};
    for (u32 base = 0; base < part.keys; base += TILE) {
        u32 valid = least(TILE, part.keys - base);
        meet();
        load_tile<T, D>(key, numbers_of<T>(heads.key, part.key_base + base, heads.key_stride, part, width),
                        heads.key_stride, valid, width, bias_of(heads.key_bias, part, width));
        load_tile<T, TILE>(slopes, from + base, heads.heads * gradients.slope_stride,
                           least(TILE, part.queries - first), TILE, nullptr);
        meet();
        product_nn<false>(result, slopes + warp * 16 * LP, LP, key, LD, (valid + 15) / 16 * 16);
    }
    if (own >= part.queries) return;
    T* to = static_cast<T*>(gradients.query) + (u64)(part.query_base + own) * heads.query_stride + part.head * width;
    write_rows<T, D>(to, heads.query_stride, least(16, part.queries - own), width, result);
}

#define ATTENTION(T, type, D)                                                                                   \
    KERNEL(ATTENTION_THREADS)                                                                                   \
    attention_##T##_##D(Heads heads, type* out, u32 out_stride, float* statistics) {                            \
        attention<type, D>(heads, out, out_stride, statistics);                                                 \
    }                                                                                                           \
    EXPORT(attention_##T##_##D)                                                                                 \
    KERNEL(ATTENTION_THREADS) attention_queries_##T##_##D(Heads heads, HeadGradients gradients) {               \
        attention_queries<type, D>(heads, gradients);                                                           \
    }                                                                                                           \
    EXPORT(attention_queries_##T##_##D)                                                                         \
    KERNEL(ATTENTION_THREADS) attention_keys_##T##_##D(Heads heads, HeadGradients gradients) {                  \
        attention_keys<type, D>(heads, gradients);                                                              \
    }                                                                                                           \
    EXPORT(attention_keys_##T##_##D)
#define ATTENTIONS(T, type)                                                                                     \
    ATTENTION(T, type, 16)                                                                                      \
    ATTENTION(T, type, 32)                                                                                      \
    ATTENTION(T, type, 64)                                                                                      \
    ATTENTION(T, type, 128)                                                                                     \
    KERNEL(ATTENTION_THREADS)                                                                                   \
    attention_common_##T(const type* out, const type* gradient, u32 count, u32 width, float* common) {          \
        attention_common<type>(out, gradient, count, width, common);                                            \
    }                                                                                                           \
    EXPORT(attention_common_##T)
ATTENTIONS(f32, float)
ATTENTIONS(bf16, bf16)
