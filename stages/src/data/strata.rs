//! Rows by class, and how many of each to take.

use std::collections::BTreeMap;

use arrow_schema::DataType;
use taper_engine::StageError;

use super::random::Random;
use crate::artifact::Table;

/// The rows of each class of a column of text or whole numbers, each list ascending; without a column, one
/// class of all rows.
///
/// # Errors
/// Where there is no such column, where it is of another type, or has nulls.
pub fn rows_by_class(table: &Table, column: Option<&str>) -> Result<Vec<Vec<usize>>, StageError> {
    let Some(column) = column else {
        return Ok(vec![(0..table.rows()).collect()]);
    };
    let text = table
        .schema()
        .field_with_name(column)
        .is_ok_and(|field| matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8));
    let about = |error: StageError| error.at("stratify");
    if text {
        let texts = table.text(column).map_err(about)?;
        Ok(group(texts.iter()))
    } else {
        let labels = table.labels(column).map_err(about)?;
        Ok(group(labels.values))
    }
}

fn group<C: Ord>(classes: impl IntoIterator<Item = C>) -> Vec<Vec<usize>> {
    let mut rows: BTreeMap<C, Vec<usize>> = BTreeMap::new();
    for (row, class) in classes.into_iter().enumerate() {
        rows.entry(class).or_default().push(row);
    }
    rows.into_values().collect()
}

/// How many of `amount` each class gets when they have `sizes` rows: in proportion, rounded down, and what
/// is left to those with the largest remainders (Hamilton's method), the first of equals first.
///
/// No class gets more than it has, as long as `amount` is at most the sum of `sizes`.
pub fn apportion(sizes: &[usize], amount: usize) -> Vec<usize> {
    let whole: u128 = sizes.iter().map(|size| *size as u128).sum();
    if whole == 0 {
        return vec![0; sizes.len()];
    }
    let exact = |size: usize| size as u128 * amount as u128;
    let mut shares: Vec<usize> = sizes
        .iter()
        .map(|size| (exact(*size) / whole) as usize)
        .collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by_key(|class| std::cmp::Reverse(exact(sizes[*class]) % whole));
    let left = amount - shares.iter().sum::<usize>();
    for class in by_remainder.into_iter().take(left) {
        shares[class] += 1;
    }
    shares
}

/// `amount` rows of `classes`, in proportion to their sizes, without replacement, ascending.
pub fn sample(classes: &[Vec<usize>], amount: usize, random: &mut Random) -> Vec<usize> {
    let sizes: Vec<usize> = classes.iter().map(Vec::len).collect();
    let mut rows = Vec::with_capacity(amount);
    for (class, share) in classes.iter().zip(apportion(&sizes, amount)) {
        rows.extend(
            random
                .sample(class.len(), share)
                .into_iter()
                .map(|place| class[place]),
        );
    }
    rows.sort_unstable();
    rows
}

/// `fraction` of `rows`, rounded to the nearest, a half up.
pub fn rows_of_fraction(rows: usize, fraction: f64) -> usize {
    ((rows as f64 * fraction + 0.5).floor() as usize).min(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_go_to_the_largest() {
        assert_eq!(apportion(&[50, 30, 20], 10), [5, 3, 2]);
        assert_eq!(apportion(&[1, 1, 1], 2), [1, 1, 0]);
        assert_eq!(apportion(&[67, 33], 10), [7, 3]);
        assert_eq!(apportion(&[0, 0], 0), [0, 0]);
    }

    proptest::proptest! {
        #[test]
        fn shares_add_up_and_no_class_gives_more_than_it_has(
            sizes in proptest::collection::vec(0_usize..1000, 1..8), part in 0_usize..=1000,
        ) {
            let amount = sizes.iter().sum::<usize>() * part / 1000;
            let shares = apportion(&sizes, amount);
            proptest::prop_assert_eq!(shares.iter().sum::<usize>(), amount);
            proptest::prop_assert!(shares.iter().zip(&sizes).all(|(share, size)| share <= size));
        }
    }
}
