// TextCNN and recurrent networks: what is theirs alone (`textcnn.rs`, `recurrent.rs`, `cell.rs`). All in f32.

// Filters `[filters, dimensions, width]` as columns `[width * filters, dimensions]`.
KERNEL(ROW_THREADS) filters_to_columns(const float* weights, u32 filters, u32 dimensions, u32 width, float* columns) {
    u32 column = blockIdx.x / filters, filter = blockIdx.x % filters;
    for (u32 i = threadIdx.x; i < dimensions; i += ROW_THREADS) {
        columns[(u64)blockIdx.x * dimensions + i] = weights[((u64)filter * dimensions + i) * width + column];
    }
}
EXPORT(filters_to_columns)

KERNEL(ROW_THREADS)
columns_to_filters(const float* columns, u32 filters, u32 dimensions, u32 width, u32 adds, float* weights) {
    u32 column = blockIdx.x / filters, filter = blockIdx.x % filters;
    for (u32 i = threadIdx.x; i < dimensions; i += ROW_THREADS) {
        u64 at = ((u64)filter * dimensions + i) * width + column;
        float value = columns[(u64)blockIdx.x * dimensions + i];
        weights[at] = adds ? weights[at] + value : value;
    }
}
EXPORT(columns_to_filters)

// How a convolution goes over rows; the padding token of row r is token `tokens + r`.
struct Convolution {
    const u32* offsets;
    u32 rows, tokens, filters, width, padding, row_width;
};

// The token under a column of a filter; none, ~0, where the zeros before and behind the row are.
DEVICE u32 token_under(const Convolution& with, u32 row, u32 position, u32 column) {
    u32 at = position + column;
    if (at < with.padding) return ~0u;
    at -= with.padding;
    u32 first = with.offsets[row], length = with.offsets[row + 1] - first;
    if (at < length) return first + at;
    return at < with.row_width ? with.tokens + row : ~0u;
}

// For each row and filter the greatest value, 0 at least, and the first place that has it. One warp each.
KERNEL(ROW_THREADS)
convolve(Convolution with, const float* products, const float* bias, float* features, u32* places) {
    u32 which = blockIdx.x * (ROW_THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (which >= with.rows * with.filters) return;
    u32 row = which / with.filters, filter = which % with.filters;
    u32 count = with.row_width + 2 * with.padding - with.width + 1;
    float greatest = -INFINITY;
    u32 place = ~0u;
    for (u32 position = lane; position < count; position += WARP) {
        float value = bias[filter];
        for (u32 column = 0; column < with.width; column++) {
            u32 token = token_under(with, row, position, column);
            if (token != ~0u) value += products[((u64)token * with.width + column) * with.filters + filter];
        }
        if (place == ~0u || value > greatest) {
            greatest = value;
            place = position;
        }
    }
    for (int by = WARP / 2; by > 0; by /= 2) {
        float other = shuffle_down(greatest, by);
        u32 other_place = bits_of(shuffle_down(float_of(place), by));
        if (other_place != ~0u && (place == ~0u || other > greatest || (other == greatest && other_place < place))) {
            greatest = other;
            place = other_place;
        }
    }
    if (lane == 0) {
        features[which] = greatest < 0.0f ? 0.0f : greatest;
        places[which] = place;
    }
}
EXPORT(convolve)

// The gradients of the products, zero before: each has one writer. Gradients of features behind ReLU's bend become 0.
KERNEL(ROW_THREADS)
convolve_backward(Convolution with, float* gradient, const float* features, const u32* places, float* products) {
    u32 which = blockIdx.x * ROW_THREADS + threadIdx.x;
    if (which >= with.rows * with.filters) return;
    u32 row = which / with.filters, filter = which % with.filters;
    if (!(features[which] > 0.0f)) {
        gradient[which] = 0.0f;
        return;
    }
    for (u32 column = 0; column < with.width; column++) {
        u32 token = token_under(with, row, places[which], column);
        if (token != ~0u) products[((u64)token * with.width + column) * with.filters + filter] = gradient[which];
    }
}
EXPORT(convolve_backward)

// Columns `first..first + count` of `[rows, width]` to or from a buffer of their own.
KERNEL(ROW_THREADS) take_columns(const float* from, u32 width, u32 first, u32 count, float* to) {
    for (u32 i = threadIdx.x; i < count; i += ROW_THREADS) {
        to[(u64)blockIdx.x * count + i] = from[(u64)blockIdx.x * width + first + i];
    }
}
EXPORT(take_columns)

KERNEL(ROW_THREADS) put_columns(const float* from, u32 width, u32 first, u32 count, float* to) {
    for (u32 i = threadIdx.x; i < count; i += ROW_THREADS) {
        to[(u64)blockIdx.x * width + first + i] = from[(u64)blockIdx.x * count + i];
    }
}
EXPORT(put_columns)

// y[column, row] = x[row, column]; one block a row of x.
KERNEL(ROW_THREADS) transpose(const float* x, u32 rows, u32 columns, float* y) {
    for (u32 i = threadIdx.x; i < columns; i += ROW_THREADS) {
        y[(u64)i * rows + blockIdx.x] = x[(u64)blockIdx.x * columns + i];
    }
}
EXPORT(transpose)

constexpr int RECURRENT_THREADS = 256;
constexpr u32 RNN_TANH = 0, RNN_RELU = 1, LSTM = 2, GRU = 3;

// One direction of one layer; buffers are `[positions, rows, …]`. Step s is at position `first + s` or, `reverse`,
// `first - s`.
struct Recurrence {
    float* gates;       // the input's part with its bias; then the gates; backward the gradients of the input's part
    float* recurrent;   // the hidden state's part; backward its gradients
    float* hidden;
    float* cell;
    float* cell_tanh;
    const float* weights;   // `[hidden, gates]` forward, `[gates, hidden]` backward
    const float* bias;
    const float* hidden_gradient;
    u32 kind, size, gate_size, rows, steps, first, reverse;
};

DEVICE u32 position_of(const Recurrence& with, u32 step) {
    return with.reverse ? with.first - step : with.first + step;
}

// A sum in chains of 256, each from 0, added in ascending order.
template <typename Term> DEVICE float chained(u32 count, Term term) {
    float total = 0;
    for (u32 begin = 0; begin < count; begin += 256) {
        float sum = 0;
        u32 end = begin + 256 < count ? begin + 256 : count;
        for (u32 i = begin; i < end; i++) sum = term(i, sum);
        total = begin == 0 ? sum : total + sum;
    }
    return total;
}

// All steps of one row, one block each: rows know nothing of each other.
KERNEL(RECURRENT_THREADS) recur(Recurrence with) {
    float* hidden = static_cast<float*>(shared_memory());
    float* cell = hidden + with.size;
    float* part = cell + with.size;
    u32 size = with.size;
    for (u32 i = threadIdx.x; i < 2 * size; i += RECURRENT_THREADS) hidden[i] = 0.0f;
    for (u32 step = 0; step < with.steps; step++) {
        u64 at = (u64)position_of(with, step) * with.rows + blockIdx.x;
        meet();
        for (u32 j = threadIdx.x; j < with.gate_size; j += RECURRENT_THREADS) {
            float sum = chained(size, [&](u32 k, float sum) {
                return fused(hidden[k], with.weights[(u64)k * with.gate_size + j], sum);
            });
            part[j] = sum + with.bias[j];
            with.recurrent[at * with.gate_size + j] = part[j];
        }
        meet();
        float* gates = with.gates + at * with.gate_size;
        for (u32 i = threadIdx.x; i < size; i += RECURRENT_THREADS) {
            float value;
            if (with.kind == LSTM) {
                float in = sigmoid(gates[i] + part[i]);
                float forget = sigmoid(gates[size + i] + part[size + i]);
                float change = hyperbolic_tangent(gates[2 * size + i] + part[2 * size + i]);
                float out = sigmoid(gates[3 * size + i] + part[3 * size + i]);
                float now = forget * cell[i] + in * change;
                float bent = hyperbolic_tangent(now);
                gates[i] = in;
                gates[size + i] = forget;
                gates[2 * size + i] = change;
                gates[3 * size + i] = out;
                cell[i] = now;
                with.cell[at * size + i] = now;
                with.cell_tanh[at * size + i] = bent;
                value = out * bent;
            } else if (with.kind == GRU) {
                float reset = sigmoid(gates[i] + part[i]);
                float update = sigmoid(gates[size + i] + part[size + i]);
                float candidate = hyperbolic_tangent(gates[2 * size + i] + reset * part[2 * size + i]);
                gates[i] = reset;
                gates[size + i] = update;
                gates[2 * size + i] = candidate;
                value = (1.0f - update) * candidate + update * hidden[i];
            } else {
                float sum = gates[i] + part[i];
                value = with.kind == RNN_TANH ? hyperbolic_tangent(sum) : sum < 0.0f ? 0.0f : sum;
                gates[i] = value;
            }
            hidden[i] = value;
            with.hidden[at * size + i] = value;
        }
    }
}
EXPORT(recur)

DEVICE float door(float y) { return y * (1.0f - y); }
DEVICE float bend(float y) { return 1.0f - y * y; }

KERNEL(RECURRENT_THREADS) recur_backward(Recurrence with) {
    float* hidden_gradient = static_cast<float*>(shared_memory());
    float* cell_gradient = hidden_gradient + with.size;
    float* part = cell_gradient + with.size;
    u32 size = with.size;
    for (u32 i = threadIdx.x; i < 2 * size; i += RECURRENT_THREADS) hidden_gradient[i] = 0.0f;
    for (u32 step = with.steps; step-- > 0;) {
        u64 at = (u64)position_of(with, step) * with.rows + blockIdx.x;
        u64 before = step > 0 ? (u64)position_of(with, step - 1) * with.rows + blockIdx.x : 0;
        float* gates = with.gates + at * with.gate_size;
        float* recurrent = with.recurrent + at * with.gate_size;
        meet();
        for (u32 i = threadIdx.x; i < size; i += RECURRENT_THREADS) {
            float gradient = hidden_gradient[i] + with.hidden_gradient[at * size + i];
            float through = 0.0f;
            if (with.kind == LSTM) {
                float in = gates[i], forget = gates[size + i], change = gates[2 * size + i], out = gates[3 * size + i];
                float bent = with.cell_tanh[at * size + i];
                float cell_before = step > 0 ? with.cell[before * size + i] : 0.0f;
                float cell = cell_gradient[i] + gradient * out * bend(bent);
                gates[i] = cell * change * door(in);
                gates[size + i] = cell * cell_before * door(forget);
                gates[2 * size + i] = cell * in * bend(change);
                gates[3 * size + i] = gradient * bent * door(out);
                cell_gradient[i] = cell * forget;
                for (u32 gate = 0; gate < 4; gate++) {
                    part[gate * size + i] = gates[gate * size + i];
                    recurrent[gate * size + i] = gates[gate * size + i];
                }
            } else if (with.kind == GRU) {
                float reset = gates[i], update = gates[size + i], candidate = gates[2 * size + i];
                float hidden_before = step > 0 ? with.hidden[before * size + i] : 0.0f;
                float of_candidate = gradient * (1.0f - update) * bend(candidate);
                float of_reset = of_candidate * recurrent[2 * size + i] * door(reset);
                float of_update = gradient * (hidden_before - candidate) * door(update);
                gates[i] = of_reset;
                gates[size + i] = of_update;
                gates[2 * size + i] = of_candidate;
                part[i] = recurrent[i] = of_reset;
                part[size + i] = recurrent[size + i] = of_update;
                part[2 * size + i] = recurrent[2 * size + i] = of_candidate * reset;
                through = gradient * update;
            } else {
                float slope = with.kind == RNN_TANH ? bend(gates[i]) : gates[i] > 0.0f ? 1.0f : 0.0f;
                gates[i] = part[i] = recurrent[i] = slope * gradient;
            }
            hidden_gradient[i] = through;
        }
        meet();
        for (u32 k = threadIdx.x; k < size; k += RECURRENT_THREADS) {
            float sum = chained(with.gate_size, [&](u32 j, float sum) {
                return fused(part[j], with.weights[(u64)j * size + k], sum);
            });
            hidden_gradient[k] += sum;
        }
    }
}
EXPORT(recur_backward)
