//! Metrics of classifiers, one file each.
