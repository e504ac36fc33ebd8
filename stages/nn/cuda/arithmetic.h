// Elementary functions and random numbers: the sequences of operations of `math.rs`, `random.rs` and `dropout.rs`, to
// the same bits.
#pragma once

DEVICE float power_of_two(int n) { return float_of((u32)(n + 127) << 23); }

constexpr float ROUND = 12582912.0f;

// e to the x as a number about 1 and `ROUND` plus the power of two that it has to be multiplied by.
struct Exponential {
    float value, shifted;
};
DEVICE Exponential exponential_parts(float x) {
    float shifted = fused(x, 1.44269504088896341f, ROUND);
    float n = shifted - ROUND;
    float r = fused(n, -0.693359375f, x);
    r = fused(n, 2.1219444005469058e-4f, r);
    float p = 0.00139261835877f;
    p = fused(p, r, 0.00836317905272f);
    p = fused(p, r, 0.0416665546172f);
    p = fused(p, r, 0.166665769897f);
    p = fused(p, r, 0.5f);
    return {fused(r * r, p, r) + 1.0f, shifted};
}

DEVICE float exponential(float x) {
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    Exponential parts = exponential_parts(x);
    int whole = (int)(bits_of(parts.shifted) - bits_of(ROUND));
    int half = whole >> 1;
    return parts.value * power_of_two(half) * power_of_two(whole - half);
}

// The same bits for x from -87 to 88, where one power of two does.
DEVICE float near_exponential(float x) {
    Exponential parts = exponential_parts(x);
    return parts.value * float_of((bits_of(parts.shifted) << 23) + bits_of(1.0f));
}

DEVICE float with_sign(float magnitude, float sign) {
    return float_of((bits_of(magnitude) & 0x7fffffffu) | (bits_of(sign) & 0x80000000u));
}

DEVICE float magnitude_of(float x) { return float_of(bits_of(x) & 0x7fffffffu); }

DEVICE float hyperbolic_tangent(float x) {
    float magnitude = magnitude_of(x);
    float square = x * x;
    float p = -0.00609671416591f;
    p = fused(p, square, 0.0209971789991f);
    p = fused(p, square, -0.0538509095785f);
    p = fused(p, square, 0.13332769737f);
    p = fused(p, square, -0.333333289441f);
    float small = fused(square * x, p, x);
    float large = 1.0f - 2.0f / (exponential(magnitude + magnitude) + 1.0f);
    return with_sign(magnitude < 0.625f ? small : large, x);
}

DEVICE float error_function(float x) {
    float magnitude = magnitude_of(x);
    float square = x * x;
    float p = 7.87587506269e-5f;
    p = fused(p, square, -0.000801686428717f);
    p = fused(p, square, 0.00518908742343f);
    p = fused(p, square, -0.0268542120106f);
    p = fused(p, square, 0.112835947152f);
    p = fused(p, square, -0.376126266667f);
    p = fused(p, square, 0.128379165848f);
    float small = fused(x, p, x);
    float bounded = magnitude > 4.0f ? 4.0f : magnitude;
    float q = -1.63715141459e-6f;
    q = fused(q, bounded, 4.60580426892e-5f);
    q = fused(q, bounded, -0.000596805625661f);
    q = fused(q, bounded, 0.00475959629327f);
    q = fused(q, bounded, -0.0264211360057f);
    q = fused(q, bounded, 0.110080082949f);
    q = fused(q, bounded, 0.631826051559f);
    q = fused(q, bounded, 1.13023343484f);
    q = fused(q, bounded, -0.000320138049678f);
    float large = 1.0f - near_exponential(-q);
    return with_sign(magnitude < 1.0f ? small : large, x);
}

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

DEVICE float gelu(float x) {
    float scaled = x * 0.70710678118654752f;
    return (0.5f * x) * (1.0f + error_function(scaled));
}

DEVICE float gelu_derivative(float x) {
    float scaled = x * 0.70710678118654752f;
    float cumulative = 0.5f * (1.0f + error_function(scaled));
    float density = exponential((-0.5f * x) * x) * 0.3989422804014327f;
    return fused(x, density, cumulative);
}

// Philox4x32-10 of a counter, in its place.
DEVICE void philox(u32 (&counter)[4], u32 key0, u32 key1) {
    UNROLL
    for (int round = 0; round < 10; round++) {
        u32 first = counter[0], second = counter[2];
        counter[0] = high_product(second, 0xCD9E8D57u) ^ counter[1] ^ key0;
        counter[1] = second * 0xCD9E8D57u;
        counter[2] = high_product(first, 0xD2511F53u) ^ counter[3] ^ key1;
        counter[3] = first * 0xD2511F53u;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

// Which elements a dropout layer drops; with threshold 0, none.
struct Mask {
    u32 key0, key1, threshold;
    float scale;
};

// The random bits of elements `128 group..` of a position (of a head) whose index modulo 16 is `block`.
DEVICE void mask_block(u32 (&words)[4], const Mask& mask, u64 row, u32 position, u32 head, u32 group, u32 block) {
    words[0] = group * 16 + (head << 20) + block;
    words[1] = position;
    words[2] = (u32)row;
    words[3] = (u32)(row >> 32);
    philox(words, mask.key0, mask.key1);
}

// Whether the element with the lower or upper half of a word stays.
DEVICE bool keeps(const Mask& mask, u32 word, u32 upper) {
    return (upper ? word >> 16 : word & 0xffffu) >= mask.threshold;
}
