//! Training and evaluation on a device of its own: an NVIDIA GPU.
//!
//! What is computed, in which order and from which random numbers is what `model` and `kernels` say; here is how
//! a device does it: weights, gradients and moments lie in its memory in the same layout, and the host prepares
//! batches, computes the loss of a handful of logits and counts steps. `cuda/` beside this crate's sources has the kernels.
//!
//! A device gives memory, copies, launches kernels and multiplies matrices. There are two: CUDA's, with the feature
//! `cuda`, and, for tests, with the feature `simulation`, one that runs the same kernels on the CPU.
#![cfg_attr(
    not(feature = "simulation"),
    expect(dead_code, reason = "the simulated device alone looks at everything")
)]

mod arena;
mod batch;
mod bert;
#[cfg(feature = "cuda")]
mod cuda;
mod head;
mod kernels;
mod learner;
mod memory;
mod recurrent;
#[cfg(feature = "simulation")]
mod simulation;
mod sums;
mod textcnn;

use std::fmt::Debug;
use std::sync::Arc;

use crate::Batch;

pub use learner::{DeviceLearner, DeviceModel};
#[cfg(feature = "simulation")]
pub use simulation::Simulation;

/// How products and what lies between them are computed. Weights, sums, normalizations, softmax and losses are
/// `f32` everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// In `f32`.
    #[default]
    F32,
    /// Products round their operands to 10 bits.
    Tf32,
    /// Products and the activations between them have 8 bits, as under PyTorch's autocast.
    Bf16,
}

/// What went wrong on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its memory is too small.
    #[error("the device has no memory left: {wanted} bytes were asked for, {free} are free")]
    OutOfMemory {
        /// The bytes asked for.
        wanted: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// The network cannot be computed there.
    #[error("{0}")]
    Unfit(String),
    /// Anything else: a driver too old, a library that is missing, a device that was lost.
    #[error("{0}")]
    Failed(String),
}

/// A device that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its number.
    pub number: usize,
    /// What its maker calls it.
    pub name: String,
    /// What it can compute: major and minor.
    pub capability: (u32, u32),
    /// Bytes of memory in all.
    pub memory: u64,
    /// Bytes that are free.
    pub free: u64,
    /// What the driver speaks: major and minor.
    pub driver: (u32, u32),
}

/// The CUDA devices of this machine.
///
/// # Errors
/// Why there are none: the program has no CUDA in it, or the machine no driver, or the driver no device.
pub fn cuda_devices() -> Result<Vec<Description>, Fault> {
    #[cfg(feature = "cuda")]
    {
        cuda::devices()
    }
    #[cfg(not(feature = "cuda"))]
    {
        Err(without_cuda())
    }
}

/// How many CUDA devices this machine has.
///
/// # Errors
/// As [`cuda_devices`].
pub fn cuda_count() -> Result<usize, Fault> {
    #[cfg(feature = "cuda")]
    {
        cuda::count()
    }
    #[cfg(not(feature = "cuda"))]
    {
        Err(without_cuda())
    }
}

#[cfg(not(feature = "cuda"))]
fn without_cuda() -> Fault {
    Fault::Failed("this program was built without CUDA".into())
}

/// Whether this program can use CUDA where there is a device.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// What a kernel took.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// Its name, or `product`.
    pub name: String,
    /// How often it ran.
    pub count: u64,
    /// How long in all.
    pub milliseconds: f64,
}

/// A device that is open, and how precisely it is to compute.
#[derive(Clone, Debug)]
pub struct Card {
    device: Arc<dyn Device>,
    precision: Precision,
}

impl Card {
    /// CUDA device `number`.
    ///
    /// # Errors
    /// Where it is not there or cannot be used.
    pub fn cuda(number: usize, precision: Precision) -> Result<Self, Fault> {
        #[cfg(feature = "cuda")]
        {
            let device = Arc::new(cuda::Cuda::open(number)?);
            Ok(Self { device, precision })
        }
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (number, precision);
            Err(without_cuda())
        }
    }

    /// The CPU, which runs the same kernels: for tests.
    #[cfg(feature = "simulation")]
    pub fn simulated(simulation: Simulation, precision: Precision) -> Self {
        Self {
            device: Arc::new(simulation),
            precision,
        }
    }

    /// How long each kernel takes in `work`, the longest first.
    ///
    /// # Errors
    /// Those of the work, and of the device.
    pub fn traced(&self, work: impl FnOnce() -> Result<(), Fault>) -> Result<Vec<Spent>, Fault> {
        self.device.trace(true)?;
        let done = work();
        let mut spent = self.device.trace(false)?;
        done?;
        spent.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
        Ok(spent)
    }

    /// How precisely it computes.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of memory that are free.
    ///
    /// # Errors
    /// Where the device does not say.
    pub fn free_memory(&self) -> Result<u64, Fault> {
        self.device.free_memory()
    }

    /// What is left of ones behind a dropout layer: `[tokens, width]`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn ones_dropped(
        &self,
        mask: &crate::kernels::Mask,
        batch: &Batch,
        width: usize,
    ) -> Result<Vec<f32>, Fault> {
        let (device, count) = (&self.device, batch.tokens() * width);
        let mut inbox = batch::Inbox::new(device);
        let rows = inbox.put(batch, &batch::Layout::packed(batch, None))?;
        let x = memory::Memory::new(device, count * 4)?;
        memory::upload_floats(&**device, &vec![1.0; count], x.address())?;
        let mask = kernels::Mask::of(Some(mask));
        let sizes = (batch.tokens(), width);
        self.drop(x.address(), mask, rows.tokens_places(), sizes)?;
        memory::download_floats(&**device, x.address(), count)
    }

    /// Of which sort the activations are that products read and write.
    fn element(&self) -> Element {
        match self.precision {
            Precision::F32 | Precision::Tf32 => Element::F32,
            Precision::Bf16 => Element::Bf16,
        }
    }
}

/// A place in a device's memory; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
struct Address(u64);

impl Address {
    const NONE: Self = Self(0);

    /// The place `count` numbers behind this one.
    fn plus(self, count: usize, element: Element) -> Self {
        Self(self.0 + (count * element.bytes()) as u64)
    }

    /// The place `count` floats behind this one.
    fn floats(self, count: usize) -> Self {
        self.plus(count, Element::F32)
    }
}

/// The sort of a number in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F32,
    Bf16,
}

impl Element {
    const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// What kernels for it are called.
    const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// An operand of a product: row-major, `stride` numbers from row to row.
#[derive(Clone, Copy, Debug)]
struct Operand {
    address: Address,
    stride: usize,
    /// Whether its rows are the product's columns.
    transposed: bool,
}

/// `c = a b`, or with `adds` `c += a b`: a is `[rows, depth]`, b `[depth, columns]`.
#[derive(Clone, Copy, Debug)]
struct Product {
    rows: usize,
    columns: usize,
    depth: usize,
    a: Operand,
    b: Operand,
    /// The sort of both operands.
    from: Element,
    c: Address,
    c_stride: usize,
    /// The sort of the result; sums are `f32`.
    to: Element,
    adds: bool,
    /// Whether operands may be rounded to 10 bits.
    rounds: bool,
}

/// How many blocks, of how many threads, with how many bytes of shared memory.
#[derive(Clone, Copy, Debug)]
struct Grid {
    blocks: [usize; 3],
    threads: usize,
    shared: usize,
}

/// An argument of a kernel: as it lies in memory.
trait Argument {
    /// Where it is.
    fn pointer(&self) -> *const std::ffi::c_void;
    /// Its bytes.
    fn size(&self) -> usize;
}

/// What kernels take as it lies in memory: plain numbers, and structures of them laid out as in C.
trait Plain: Copy {}

impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for f32 {}
impl Plain for Address {}

impl<T: Plain> Argument for T {
    fn pointer(&self) -> *const std::ffi::c_void {
        std::ptr::from_ref(self).cast()
    }

    fn size(&self) -> usize {
        size_of::<T>()
    }
}

/// A device: work is done in the order in which it is asked for, and only [`Device::download`] waits for it.
///
/// Addresses are of memory that it gave, and are long enough for what kernels do with them: this module's
/// tests see to it, as nothing in the types does.
trait Device: Debug + Send + Sync {
    /// Gives memory; what it holds is of no meaning.
    fn allocate(&self, bytes: usize) -> Result<Address, Fault>;
    /// Takes memory back.
    fn release(&self, address: Address, bytes: usize);
    /// Sets bytes to 0.
    fn clear(&self, address: Address, bytes: usize) -> Result<(), Fault>;
    /// Copies within its memory.
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), Fault>;
    /// Copies bytes to it; they may change as soon as this returns.
    fn upload(&self, bytes: &[u8], to: Address) -> Result<(), Fault>;
    /// Waits for all work, then copies bytes from it.
    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), Fault>;
    /// Launches a kernel.
    fn launch(&self, kernel: &str, grid: Grid, arguments: &[&dyn Argument]) -> Result<(), Fault>;
    /// Multiplies.
    fn product(&self, product: &Product) -> Result<(), Fault>;
    /// Bytes of memory that are free.
    fn free_memory(&self) -> Result<u64, Fault>;
    /// Begins to take the times of kernels, or ends it and answers them.
    fn trace(&self, begins: bool) -> Result<Vec<Spent>, Fault>;
}
