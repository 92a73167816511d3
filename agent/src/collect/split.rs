//! Splitting a whole number by weights so that the parts add up to it
//! exactly: the method of the largest remainder (Hamilton's).

/// Splits `amount` in proportion to `weights`. The parts add up to `amount`,
/// and each is within one of its exact share; what rounding leaves goes to
/// the largest remainders, the earlier one on a tie. All zeros when every
/// weight is zero: there is nobody to give anything to.
pub fn split(amount: u64, weights: &[u64]) -> Vec<u64> {
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    if total == 0 {
        return vec![0; weights.len()];
    }
    let mut parts = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    let mut given = 0u64;
    for (index, &weight) in weights.iter().enumerate() {
        // Below 2^128: both factors are below 2^64.
        let product = u128::from(amount) * u128::from(weight);
        // At most `amount`, because the weight is at most the total.
        let part = u64::try_from(product / total).unwrap_or(amount);
        parts.push(part);
        given += part;
        if product % total > 0 {
            remainders.push((std::cmp::Reverse(product % total), index));
        }
    }
    // As many are left as remainders make up, which is fewer than there are
    // of them.
    let left = usize::try_from(amount - given).unwrap_or(usize::MAX);
    remainders.sort_unstable();
    for (_, index) in remainders.into_iter().take(left) {
        parts[index] += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_by_table() {
        for (amount, weights, parts) in [
            (0, vec![1, 2], vec![0, 0]),
            (10, vec![], vec![]),
            (10, vec![0, 0], vec![0, 0]),
            (10, vec![1, 1, 1], vec![4, 3, 3]),
            (10, vec![0, 7], vec![0, 10]),
            (100, vec![1, 1, 2], vec![25, 25, 50]),
            (1, vec![1, 3], vec![0, 1]),
            (u64::MAX, vec![u64::MAX, u64::MAX], vec![u64::MAX / 2 + 1, u64::MAX / 2]),
        ] {
            assert_eq!(split(amount, &weights), parts, "{amount} by {weights:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_add_up_and_are_within_one_of_their_share(
            amount: u64, weights in proptest::collection::vec(any::<u64>(), 1..40)
        ) {
            let parts = split(amount, &weights);
            let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
            let sum: u128 = parts.iter().map(|&part| u128::from(part)).sum();
            prop_assert_eq!(sum, if total == 0 { 0 } else { u128::from(amount) });
            for (&part, &weight) in parts.iter().zip(&weights) {
                let product = u128::from(amount) * u128::from(weight);
                if let Some(floor) = product.checked_div(total) {
                    prop_assert!((floor..=floor + 1).contains(&u128::from(part)));
                }
                prop_assert!(weight > 0 || part == 0);
            }
        }
    }
}
