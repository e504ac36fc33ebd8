//! Floats in the shortest form that keeps their value.

/// The half-precision bits of `value`, where it has exactly this value as a half.
pub(super) fn as_half(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = u16::from(value.is_sign_negative()) << 15;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let mantissa = bits & 0x7f_ffff;
    match exponent {
        128 => (mantissa == 0).then_some(sign | 0x7c00),
        -127 => (mantissa == 0).then_some(sign),
        -14..=15 => {
            let exact = mantissa & 0x1fff == 0;
            exact.then_some(sign | ((exponent + 15) as u16) << 10 | (mantissa >> 13) as u16)
        }
        -24..=-15 => {
            let whole = mantissa | 0x80_0000;
            let shift = (-1 - exponent) as u32;
            let exact = whole & ((1 << shift) - 1) == 0;
            exact.then_some(sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}

/// The single-precision form of `value`, where it has exactly this value as a single.
pub(super) fn as_single(value: f64) -> Option<f32> {
    let single = value as f32;
    (f64::from(single).to_bits() == value.to_bits()).then_some(single)
}

/// The value of half-precision bits.
pub(super) fn from_half(half: u16) -> f64 {
    let sign = u64::from(half >> 15) << 63;
    let exponent = u64::from(half >> 10 & 0x1f);
    let mantissa = u64::from(half & 0x3ff);
    match exponent {
        0 => {
            let two_to_minus_24 = f64::from_bits((1023 - 24) << 52);
            let size = mantissa as f64 * two_to_minus_24;
            f64::from_bits(size.to_bits() | sign)
        }
        31 => f64::from_bits(sign | 0x7ff << 52 | mantissa << 42),
        _ => f64::from_bits(sign | (exponent + 1023 - 15) << 52 | mantissa << 42),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_read_back() {
        for half in 0..=u16::MAX {
            let value = from_half(half);
            if !value.is_nan() {
                let single = as_single(value).expect("every half is a single");
                assert_eq!(as_half(single), Some(half), "{half:#06x}");
            }
        }
    }

    #[test]
    fn what_is_no_half_is_not_rounded_to_one() {
        for value in [0.1_f32, 65505.0, 65536.0, 1.0e-8, 2.0_f32.powi(-25), 2049.0] {
            assert_eq!(as_half(value), None, "{value}");
        }
    }
}
