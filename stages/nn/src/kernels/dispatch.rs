//! The one table of what is compiled for which CPU, and the choice among it, made once.
//!
//! The parts of kernels that work on one tile are written once, as plain loops; the table compiles each
//! three times, for any x86-64 CPU, for AVX2 with FMA and for AVX-512, and for both numbers. The bits are
//! the same: loops that the compiler may put in vectors hold no reduction, and a fused multiply-add is
//! correctly rounded everywhere. `TAPER_CPU=scalar|avx2|avx512` in the environment lowers the choice.
#![expect(
    unsafe_code,
    reason = "a function compiled for a CPU's features may be called only where it has them"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::kernels::{
    attention, backlog, column_sums, dropout, elementwise, embedding, gemm, layer_norm, optimizer,
    reduce,
};

/// What a CPU can do, as far as the kernels care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Any CPU.
    Scalar = 0,
    /// x86-64 with AVX2 and FMA.
    Avx2 = 1,
    /// x86-64 with AVX-512 F, BW, DQ and VL besides.
    Avx512 = 2,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// Its name in `TAPER_CPU`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The highest level of this CPU.
    #[cfg(target_arch = "x86_64")]
    pub fn detected() -> Self {
        if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
            Self::Scalar
        } else if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            Self::Avx512
        } else {
            Self::Avx2
        }
    }

    /// The highest level of this CPU.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn detected() -> Self {
        Self::Scalar
    }

    fn chosen() -> Self {
        let wanted = std::env::var("TAPER_CPU").unwrap_or_default();
        Self::ALL
            .into_iter()
            .find(|level| level.name() == wanted)
            .map_or(Self::detected(), |level| level.min(Self::detected()))
    }

    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Scalar,
            1 => Self::Avx2,
            _ => Self::Avx512,
        }
    }
}

const UNKNOWN: u8 = u8::MAX;
static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);
static FORCING: Mutex<()> = Mutex::new(());

/// The level at which kernels run: the CPU's, or the lower one that `TAPER_CPU` names.
#[inline]
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        UNKNOWN => {
            let level = Level::chosen();
            LEVEL.store(level as u8, Ordering::Relaxed);
            level
        }
        number => Level::from_number(number),
    }
}

/// Runs `work` with the kernels at `wanted`, or at the CPU's own level where that is lower. One caller at a
/// time: others wait. Kernels that other threads run meanwhile are at that level too, to the same bits.
pub fn with_level<T>(wanted: Level, work: impl FnOnce() -> T) -> T {
    struct Restore(u8);
    impl Drop for Restore {
        fn drop(&mut self) {
            LEVEL.store(self.0, Ordering::Relaxed);
        }
    }
    let _one_at_a_time = FORCING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let _restore = Restore(level() as u8);
    LEVEL.store(wanted.min(Level::detected()) as u8, Ordering::Relaxed);
    work()
}

/// For each function: its file, its name, its parameters; `R` is the number.
macro_rules! table {
    ($($file:ident::$name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        /// The parts of kernels that are compiled for each level. Call the functions of the kernels' own
        /// files instead.
        #[doc(hidden)]
        pub trait Kernels<R> {
            $(#[doc(hidden)] fn $name($($argument: $type),*) $(-> $result)?;)*
        }
        table!(@number single f32; $($file::$name($($argument: $type),*) $(-> $result)?;)*);
        table!(@number double f64; $($file::$name($($argument: $type),*) $(-> $result)?;)*);
    };
    (@number $module:ident $number:ty; $($file:ident::$name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        mod $module {
            use super::*;
            type R = $number;
            impl Kernels<R> for R {
                $(
                    #[cfg(target_arch = "x86_64")]
                    fn $name($($argument: $type),*) $(-> $result)? {
                        #[target_feature(enable = "avx2,fma")]
                        fn avx2($($argument: $type),*) $(-> $result)? {
                            $file::$name::<R>($($argument),*)
                        }
                        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                        fn avx512($($argument: $type),*) $(-> $result)? {
                            $file::$name::<R>($($argument),*)
                        }
                        match level() {
                            Level::Scalar => $file::$name::<R>($($argument),*),
                            // SAFETY: the level is never above what was detected.
                            Level::Avx2 => unsafe { avx2($($argument),*) },
                            // SAFETY: as above.
                            Level::Avx512 => unsafe { avx512($($argument),*) },
                        }
                    }
                    #[cfg(not(target_arch = "x86_64"))]
                    fn $name($($argument: $type),*) $(-> $result)? {
                        $file::$name::<R>($($argument),*)
                    }
                )*
            }
        }
    };
}

table! {
    elementwise::add_tile(x: &mut [R], y: &[R]);
    elementwise::scale_tile(x: &mut [R], factor: R);
    elementwise::axpy_tile(x: &mut [R], factor: R, y: &[R]);
    elementwise::gelu_tile(y: &mut [R], x: &[R]);
    elementwise::gelu_backward_tile(gradient: &mut [R], x: &mut [R]);
    elementwise::tanh_tile(x: &mut [R]);
    elementwise::tanh_backward_tile(gradient: &mut [R], y: &[R]);
    elementwise::relu_tile(x: &mut [R]);
    elementwise::relu_backward_tile(gradient: &mut [R], y: &[R]);
    elementwise::sigmoid_tile(x: &mut [R]);
    elementwise::sigmoid_backward_tile(gradient: &mut [R], y: &[R]);
    column_sums::column_sums_tile(x: gemm::Matrix<'_, R>, sums: &mut [R]);
    dropout::dropout_token(mask: &dropout::Mask, row: u64, position: u32, x: &mut [R]);
    embedding::embedding_tile(out: &mut [R], width: usize, tables: &[(&[u32], &[R])], first: usize);
    layer_norm::layer_norm_tile(norm: &layer_norm::Normalization<'_, R>, x: &[R], y: &mut [R], statistics: &mut [R]);
    layer_norm::layer_norm_backward_tile(norm: &layer_norm::Normalization<'_, R>, x: &[R], statistics: &[R], gradient: &mut [R]);
    layer_norm::layer_norm_columns_tile(rows: layer_norm::Columns<'_, R>, sums: layer_norm::ColumnSums<'_, R>);
    optimizer::adam_tile(with: &optimizer::Scalars<R>, tensors: optimizer::AdamTile<'_, R>);
    backlog::adam_missed_tile(missed: &backlog::Missed<R>, made: usize, row: backlog::Row<'_, R>);
    backlog::decay_missed_tile(missed: &backlog::Missed<R>, made: usize, parameters: &mut [R]);
    optimizer::sgd_tile(step: &optimizer::SgdStep, parameters: &mut [R], gradients: &[R], velocity: Option<&mut [R]>);
    reduce::sum_of_squares_tile(x: &[R]) -> R;
    attention::attention_task(task: &attention::Task<'_, R>, out: attention::Output<'_, R>, scratch: &mut [R]);
    attention::attention_backward_task(task: &attention::Task<'_, R>, out: attention::Gradients<'_, R>, scratch: &mut [R]);
}
