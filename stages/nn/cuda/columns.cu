// Sums down columns: those of 64 rows each, in ascending order, then `finish_sums` adds these up for all tensors of a
// backward pass at once. One thread a column, or a few beside each other.

constexpr int COLUMN_THREADS = 128;
constexpr u32 COLUMN_ROWS = 64;

struct Span {
    u32 column, first, end;
    bool inside;
};

DEVICE Span column_span(u32 rows, u32 columns, u32 some = 1) {
    u32 column = (blockIdx.x * COLUMN_THREADS + threadIdx.x) * some;
    u32 first = blockIdx.y * COLUMN_ROWS;
    u32 end = first + COLUMN_ROWS < rows ? first + COLUMN_ROWS : rows;
    return {column, first, end, column < columns};
}

// Calls `each(place, load(place, row))` down a column; loads go eight ahead, so that they need not wait for what is stored.
template <typename Load, typename Each> DEVICE void down(const Span& span, u32 columns, Load load, Each each) {
    for (u32 row = span.first; row < span.end; row += 8) {
        decltype(load((u64)0, 0u)) loaded[8];
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            if (row + i < span.end) loaded[i] = load((u64)(row + i) * columns + span.column, row + i);
        }
        UNROLL
        for (u32 i = 0; i < 8; i++) {
            if (row + i < span.end) each((u64)(row + i) * columns + span.column, loaded[i]);
        }
    }
}

template <typename T> DEVICE void column_sums(const T* x, u32 rows, u32 columns, float* sums) {
    Span span = column_span(rows, columns);
    if (!span.inside) return;
    float sum = 0;
    auto numbers = [&](u64 at, u32) { return wide(x[at]); };
    down(span, columns, numbers, [&](u64, float number) { sum += number; });
    sums[(u64)blockIdx.y * columns + span.column] = sum;
}

// N numbers beside each other, of one tensor or of two.
template <int N> struct Some {
    float a[N], b[N];
};

// gelu(x + bias), N columns a thread.
template <typename T, int N> DEVICE void bias_gelu(const T* x, const float* bias, T* y, u32 rows, u32 columns) {
    Span span = column_span(rows, columns, N);
    if (!span.inside) return;
    float shift[N];
    load_some(shift, bias + span.column);
    auto numbers = [&](u64 at, u32) {
        Some<N> some;
        load_some(some.a, x + at);
        return some;
    };
    down(span, columns, numbers, [&](u64 at, Some<N>& some) {
        UNROLL
        for (int i = 0; i < N; i++) some.a[i] = gelu(some.a[i] + shift[i]);
        store_some(y + at, some.a);
    });
}

// Turns the gradient of gelu(x + bias) into that of x, and sums its columns: the gradient of the bias.
template <typename T, int N>
DEVICE void bias_gelu_backward(T* gradient, const T* x, const float* bias, u32 rows, u32 columns, float* sums) {
    Span span = column_span(rows, columns, N);
    if (!span.inside) return;
    float shift[N], sum[N] = {};
    load_some(shift, bias + span.column);
    auto numbers = [&](u64 at, u32) {
        Some<N> some;
        load_some(some.a, gradient + at);
        load_some(some.b, x + at);
        return some;
    };
    down(span, columns, numbers, [&](u64 at, Some<N>& some) {
        UNROLL
        for (int i = 0; i < N; i++) {
            some.a[i] = wide(narrow<T>(some.a[i] * gelu_derivative(some.b[i] + shift[i])));
            sum[i] += some.a[i];
        }
        store_some(gradient + at, some.a);
    });
    store_some(sums + (u64)blockIdx.y * columns + span.column, sum);
}

#define GELU(T, type, N)                                                                                               \
    KERNEL(COLUMN_THREADS) bias_gelu_##T##_##N(const type* x, const float* bias, type* y, u32 rows, u32 columns) {      \
        bias_gelu<type, N>(x, bias, y, rows, columns);                                                                  \
    }                                                                                                                   \
    EXPORT(bias_gelu_##T##_##N)                                                                                         \
    KERNEL(COLUMN_THREADS)                                                                                              \
    bias_gelu_backward_##T##_##N(type* gradient, const type* x, const float* bias, u32 rows, u32 columns, float* sums) { \
        bias_gelu_backward<type, N>(gradient, x, bias, rows, columns, sums);                                            \
    }                                                                                                                   \
    EXPORT(bias_gelu_backward_##T##_##N)
#define COLUMNS(T, type)                                                                                                \
    KERNEL(COLUMN_THREADS) column_sums_##T(const type* x, u32 rows, u32 columns, float* sums) {                         \
        column_sums<type>(x, rows, columns, sums);                                                                      \
    }                                                                                                                   \
    EXPORT(column_sums_##T)                                                                                             \
    GELU(T, type, 1)                                                                                                    \
    GELU(T, type, 4)
COLUMNS(f32, float)
COLUMNS(bf16, bf16)

// The gradients of a normalization's gamma and beta, from that of y.
KERNEL(COLUMN_THREADS)
norm_columns(const float* gradient, const float* sum, const float* statistics, u32 rows, u32 columns, float* gamma_sums,
             float* beta_sums) {
    Span span = column_span(rows, columns);
    if (!span.inside) return;
    float gamma = 0, beta = 0;
    auto numbers = [&](u64 at, u32 row) -> Two {
        return {gradient[at], (sum[at] - statistics[2 * (u64)row]) * statistics[2 * (u64)row + 1]};
    };
    down(span, columns, numbers, [&](u64, Two with) {
        gamma = fused(with.a, with.b, gamma);
        beta += with.a;
    });
    gamma_sums[(u64)blockIdx.y * columns + span.column] = gamma;
    beta_sums[(u64)blockIdx.y * columns + span.column] = beta;
}
EXPORT(norm_columns)

// The gradients of segment embeddings: sums `[classes, columns]` of the rows of each class.
KERNEL(COLUMN_THREADS)
class_sums(const float* gradient, const u32* class_of, u32 classes, u32 rows, u32 columns, float* sums) {
    Span span = column_span(rows, columns);
    if (!span.inside) return;
    for (u32 which = 0; which < classes; which++) {
        float sum = 0;
        for (u32 row = span.first; row < span.end; row++) {
            if (class_of[row] == which) sum += gradient[(u64)row * columns + span.column];
        }
        sums[((u64)blockIdx.y * classes + which) * columns + span.column] = sum;
    }
}
EXPORT(class_sums)

// 32 columns of a tensor: `parts` rows of sums, `stride` apart.
struct SumTask {
    const float* sums;
    float* target;
    u32 columns, parts, stride, adds;
};

// One block a task: warp w sums every eighth row, then the warps' sums are added in order.
KERNEL(256) finish_sums(const SumTask* tasks) {
    SHARED float parts[8][WARP];
    SumTask task = tasks[blockIdx.x];
    u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float sum = 0;
    if (lane < task.columns) {
        for (u32 part = warp; part < task.parts; part += 8) sum += task.sums[(u64)part * task.stride + lane];
    }
    parts[warp][lane] = sum;
    meet();
    if (warp == 0 && lane < task.columns) {
        for (u32 i = 1; i < 8; i++) sum += parts[i][lane];
        task.target[lane] = task.adds ? task.target[lane] + sum : sum;
    }
}
EXPORT(finish_sums)
