//! The natural logarithm of several numbers at once: the library's is a call for each, and most of the work here.

use super::LANES;

const MANTISSA: u64 = (1 << 52) - 1;
const ONE: u64 = 1023 << 52;

/// `2 / (2k + 1)`: the series of `ln((1 + t) / (1 − t)) = 2 (t + t³/3 + t⁵/5 + …)`. With `|t| < 0.172`, what follows is below
/// `1e-17`.
const SERIES: [f64; 10] =
    [2.0 / 19.0, 2.0 / 17.0, 2.0 / 15.0, 2.0 / 13.0, 2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0];

/// `ln x` of each, within some units of the last place, for finite numbers that are not subnormal and above 0.
#[inline]
pub(super) fn ln(x: [f64; LANES]) -> [f64; LANES] {
    let mut result = [0.0; LANES];
    for lane in 0..LANES {
        let bits = x[lane].to_bits();
        // Between 1/√2 and √2, so that the series is short.
        let mantissa = f64::from_bits(bits & MANTISSA | ONE);
        let large = mantissa > std::f64::consts::SQRT_2;
        let scaled = if large { mantissa * 0.5 } else { mantissa };
        let exponent = (bits >> 52) as i32 - 1023 + i32::from(large);
        let t = (scaled - 1.0) / (scaled + 1.0);
        let squared = t * t;
        let mut sum = SERIES[0];
        for coefficient in &SERIES[1..] {
            sum = sum * squared + coefficient;
        }
        result[lane] = f64::from(exponent) * std::f64::consts::LN_2 + t * sum;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_librarys(exponent in -24.0f64..1.0, places in 0u32..20) {
            let x = 10f64.powf(exponent) * (1.0 + f64::from(places) * f64::EPSILON);
            for value in ln([x; LANES]) {
                prop_assert!((value - x.ln()).abs() <= 4.0 * f64::EPSILON * x.ln().abs().max(1.0), "{x}: {value}");
            }
        }
    }

    #[test]
    fn of_one_it_is_zero() {
        assert_eq!(ln([1.0; LANES]), [0.0; LANES]);
    }
}
